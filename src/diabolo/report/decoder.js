// A small decoder: a code in, a row out, as inverse_transform gives it; and how dense the prior is there.
"use strict";

const ACTIVATIONS = {
  relu: (x) => Math.max(x, 0),
  gelu: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x / (1 + Math.exp(-x)),
  tanh: Math.tanh,
  softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  identity: (x) => x,
};

function floats(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  return new Float32Array(bytes.buffer);
}

function unpacked(decoder) {
  if (decoder.why_not) return null;
  const read = (layers) => layers && layers.map((l) => ({ ...l, weight: floats(l.weight), bias: floats(l.bias) }));
  return { ...decoder, layers: read(decoder.layers), convolutions: read(decoder.convolutions) };
}

function affine(layer, row) {
  const out = Array.from(layer.bias);
  for (let i = 0; i < layer.n_inputs; i++)
    for (let o = 0; o < layer.n_outputs; o++) out[o] += row[i] * layer.weight[i * layer.n_outputs + o];
  return out;
}

// 3 x 3 pixels, zeros around; an image is its numbers line by line, each pixel's channels together.
function convolved(layer, image, [height, width]) {
  const { n_inputs, n_outputs, weight, bias } = layer, out = new Float64Array(height * width * n_outputs);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
    const to = (y * width + x) * n_outputs;
    for (let o = 0; o < n_outputs; o++) out[to + o] = bias[o];
    for (let side = 0; side < 9; side++) {
      const v = y + Math.floor(side / 3) - 1, u = x + (side % 3) - 1;
      if (v < 0 || v >= height || u < 0 || u >= width) continue;
      for (let i = 0; i < n_inputs; i++) {
        const value = image[(v * width + u) * n_inputs + i], from = (side * n_inputs + i) * n_outputs;
        for (let o = 0; o < n_outputs; o++) out[to + o] += value * weight[from + o];
      }
    }
  }
  return out;
}

// Four channels become a square of four pixels, cut to the finer size.
function unfolded(image, [height, width], [finer, wider], depth) {
  const out = new Float64Array(finer * wider * depth);
  for (let y = 0; y < Math.min(finer, 2 * height); y++) for (let x = 0; x < Math.min(wider, 2 * width); x++) {
    const from = ((y >> 1) * width + (x >> 1)) * 4 * depth + (2 * (y & 1) + (x & 1)) * depth;
    for (let k = 0; k < depth; k++) out[(y * wider + x) * depth + k] = image[from + k];
  }
  return out;
}

// The image that a code unfolds into, block by block: what is said of every pixel first.
function pictured(decoder, row, activate) {
  let image = row;
  decoder.convolutions.forEach((layer, at) => {
    const [size, finer] = [decoder.sizes[at], decoder.sizes[at + 1]];
    image = unfolded(convolved(layer, image, size), size, finer, layer.n_outputs / 4);
    if (at < decoder.convolutions.length - 1) image = image.map(activate);
  });
  const depth = decoder.blocks.reduce((sum, one) => sum + one, 0);
  let start = 0;
  return decoder.blocks.flatMap((n) => {
    const block = [];
    for (let pixel = 0; pixel < image.length / depth; pixel++)
      for (let k = 0; k < n; k++) block.push(image[pixel * depth + start + k]);
    start += n;
    return block;
  });
}

function parameters(decoder, code) {
  const activate = ACTIVATIONS[decoder.activation];
  let row = code;
  decoder.layers.forEach((layer, at) => {
    const out = affine(layer, row);
    if (at === decoder.layers.length - 1) row = decoder.convolutions ? out.map(activate) : out;
    else {
      const next = out.map(activate);
      row = decoder.residual && next.length === row.length ? next.map((x, i) => x + row[i]) : next;
    }
  });
  const said = decoder.convolutions ? pictured(decoder, row, activate) : row;
  return decoder.start.map((start, i) => start + said[i]);
}

const largest = (values) => values.indexOf(Math.max(...values));
const logSigmoid = (x) => Math.min(x, 0) - Math.log1p(Math.exp(-Math.abs(x)));

// even halves, as numpy rounds
function rounded(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + (low % 2 ? 1 : 0) : Math.round(x);
}

const RULES = {
  real(rule, params) {
    const part = rule.atoms.length ? largest([0, ...params.slice(1)]) : 0;
    return part ? rule.atoms[part - 1] : params[0] * rule.scale + rule.mean;
  },
  positive: (rule, [loc]) => Math.exp(Math.min(loc * rule.scale + rule.mean, 700)),
  count: (rule, [shift]) => rounded(Math.exp(Math.min(Math.max(rule.mean + shift, -25), 25))),
  pixels: (rule, [loc]) => rounded((Math.min(Math.max(loc, -1), 1) + 1) * 0.5 * rule.top),
  binary: (rule, [logit]) => rule.levels[logit > 0 ? 1 : 0],
  categorical: (rule, logits) => rule.levels[largest(logits)],
  ordinal(rule, [loc]) {
    const t = rule.thresholds.map((x) => x - loc);
    const masses = rule.levels.map((_, k) => {
      const below = k < t.length ? logSigmoid(t[k]) : 0;
      const above = k > 0 ? logSigmoid(-t[k - 1]) : 0;
      const between = k > 0 && k < t.length ? Math.log(-Math.expm1(t[k - 1] - t[k])) : 0;
      return below + above + between;
    });
    return rule.levels[largest(masses)];
  },
};

// One value per modelled column: [{column, value}].
function decoded(decoder, code) {
  const params = parameters(decoder, code);
  return decoder.columns.map((rule) => ({
    column: rule.column,
    value: RULES[rule.rule](rule, rule.at.map((i) => params[i])),
  }));
}

// log p(code), nats.
function logPrior(decoder, code) {
  const half = 0.5 * code.length * Math.log(2 * Math.PI);
  if (!decoder.prior.parts) return -0.5 * code.reduce((sum, z) => sum + z * z, 0) - half;
  const each = decoder.prior.parts.map((part) => {
    const away = code.map((z, i) => z - part.mean[i]);
    let log = part.log_weight - half;
    part.whitener.forEach((line, k) => {
      const white = line.reduce((sum, w, i) => sum + w * away[i], 0);
      log += Math.log(line[k]) - 0.5 * white * white;
    });
    return log;
  });
  const most = Math.max(...each);
  return most + Math.log(each.reduce((sum, one) => sum + Math.exp(one - most), 0));
}

// Share of the model's own codes that lie at less dense places, in per cent.
function denserThan(decoder, value) {
  return decoder.prior.quantiles.filter((one) => one < value).length - (value > decoder.prior.quantiles[100] ? 1 : 0);
}
