// Vega-Lite charts. Colours are the page's own variables, so one drawing serves paper and dark screens.
"use strict";

const DATA = "var(--c0)", DRAWS = "var(--c1)", INK = "var(--ink)", SOFT = "var(--soft)", RULE = "var(--rule)";
const FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Noto Sans KR", "Malgun Gothic", sans-serif';
const COLORS = [...Array(10).keys()].map((number) => `var(--c${number})`);
const SHAPES = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "triangle-right"];
const DAY = 864e5; // milliseconds

const CONFIG = {
  background: null,
  font: FONT,
  view: { stroke: null },
  axis: { labelColor: SOFT, titleColor: SOFT, domainColor: RULE, tickColor: RULE, grid: false, labelFontSize: 11,
    titleFontSize: 12, titleFontWeight: "normal", labelFontWeight: "normal", tickSize: 4 },
  legend: { labelColor: INK, titleColor: SOFT, titleFontWeight: "normal", labelFontSize: 11.5, titleFontSize: 12,
    symbolSize: 70, gradientLength: 160, gradientThickness: 10, labelLimit: 88 },
  style: { "guide-label": { font: FONT }, "guide-title": { font: FONT } },
};

// A view drawn into an element; resolves to the vega view, with the data set "selected" to be filled.
async function draw(element, spec) {
  const compiled = vegaLite.compile({ config: CONFIG, ...spec }).spec;
  const view = new vega.View(vega.parse(compiled), { renderer: "svg", hover: false });
  await view.initialize(element).runAsync();
  const svg = element.querySelector("svg");
  if (svg) { svg.setAttribute("role", "img"); svg.setAttribute("aria-label", spec.description || ""); }
  return view;
}

function selectedLayer(encoding, mark) {
  return { data: { name: "selected", values: [] }, mark: { color: INK, ...mark }, encoding };
}

const NARROW = document.documentElement.clientWidth < 700;

// A chart's width: at most so much, less where the window leaves less beside the axis.
const fitting = (most) => Math.max(220, Math.min(most, document.documentElement.clientWidth - 140));

// Bars of the data, a line of the draws, a rule at the selected row.
function histogramSpec(told, { width, height, title = null, description, draws = true }) {
  const clock = told.clock, value = (edge) => (clock ? edge * DAY : edge);
  const bars = told.rows.map((share, i) => ({ from: value(told.edges[i]), to: value(told.edges[i + 1]), share,
    drawn: told.draws ? told.draws[i] : 0 }));
  const ends = [bars[0].from, bars[bars.length - 1].to];
  const line = bars.flatMap((bar) => [{ at: bar.from, drawn: bar.drawn }, { at: bar.to, drawn: bar.drawn }]);
  const type = clock ? "temporal" : "quantitative";
  const axis = { tickCount: 4, ...(!clock && Math.max(...ends.map(Math.abs)) >= 1e5 ? { format: "~s" } : {}) };
  const x = { field: "from", type, scale: { domain: ends, nice: false, zero: false }, axis, title };
  const [below, above] = told.beyond || [0, 0];
  const outside = [...(below ? [{ at: ends[0], text: `← ${below} more` }] : []), ...(above ? [{ at: ends[1], text: `${above} more →` }] : [])];
  const y = { field: "share", type: "quantitative", axis: null };
  return {
    width, height, description, padding: 2,
    layer: [
      { data: { values: bars }, mark: { type: "rect", color: DATA, opacity: 0.35 },
        encoding: { x, x2: { field: "to" }, y, y2: { datum: 0 } } },
      ...(draws && told.draws ? [{ data: { values: line }, mark: { type: "line", color: DRAWS, strokeWidth: 1.6 },
        encoding: { x: { ...x, field: "at" }, y: { ...y, field: "drawn" } } }] : []),
      ...outside.map((one) => ({ data: { values: [one] }, mark: { type: "text", align: one.at === ends[0] ? "left" : "right", baseline: "top",
        color: SOFT, fontSize: 10 }, encoding: { x: { ...x, field: "at" }, y: { value: 0 }, text: { field: "text" } } })),
      selectedLayer({ x: { ...x, field: "at" } }, { type: "rule", strokeWidth: 2, clip: true }),
    ],
  };
}

// Levels: bars of the data, ticks of the draws, a point at the selected row's level.
function levelsSpec(told, { width, description }) {
  const values = told.levels.map((level, i) => ({ level, rows: told.rows[i], drawn: told.draws[i] }));
  const y = { field: "level", type: "nominal", sort: null, scale: { domain: told.levels }, title: null,
    axis: { domain: false, ticks: false, labelColor: INK, labelLimit: 96 } };
  const x = { field: "rows", type: "quantitative", title: null, axis: { format: ".0%", tickCount: 3 } };
  return {
    width, height: { step: 14 }, description, padding: 2,
    layer: [
      { data: { values }, mark: { type: "bar", color: DATA, opacity: 0.35, height: { band: 0.75 } }, encoding: { x, y } },
      { data: { values }, mark: { type: "tick", color: DRAWS, thickness: 2, height: { band: 0.85 } },
        encoding: { x: { ...x, field: "drawn" }, y } },
      selectedLayer({ y: { ...y, field: "at" }, x: { datum: 0 } }, { type: "point", shape: "triangle-right", filled: true, size: 60 }),
    ],
  };
}

function lossSpec(training) {
  const step = training.steps_per_round;
  const rows = (losses, name) => losses.map((loss, i) => ({ step: step * (i + 1), loss, name }));
  const values = [...rows(training.loss, "training"), ...rows(training.held_out, "held out")];
  const sorted = values.map((row) => row.loss).filter(Number.isFinite).sort((a, b) => a - b);
  const low = sorted[0], high = sorted[Math.floor(0.93 * (sorted.length - 1))];
  const domain = sorted.length > 20 ? [low - 0.06 * (high - low), high + 0.12 * (high - low)] : undefined;
  const x = { field: "step", type: "quantitative", title: "training steps" };
  const y = { field: "loss", type: "quantitative", title: "loss, nats (scaled cells)", scale: { domain, zero: false, nice: false } };
  const kept = training.best_round === null ? [] :
    [{ step: step * (training.best_round + 1), loss: training.held_out[training.best_round] }];
  return {
    width: fitting(560), height: 210, description: "Loss per training step",
    layer: [
      { data: { values }, mark: { type: "line", clip: true, strokeWidth: 1.6 },
        encoding: { x, y, color: { field: "name", type: "nominal", title: null,
          scale: { domain: ["training", "held out"], range: [SOFT, DATA] } },
          strokeDash: { field: "name", type: "nominal", title: null, scale: { domain: ["training", "held out"] } } } },
      { data: { values: kept }, mark: { type: "point", filled: true, color: DATA, size: 70 }, encoding: { x, y } },
      { data: { values: kept }, mark: { type: "text", text: "kept", dy: -12, color: DATA, fontSize: 12 }, encoding: { x, y } },
    ],
  };
}

function divergenceSpec(divergence) {
  const values = divergence.map((nats, k) => ({ component: String(k + 1), nats }));
  return {
    width: { step: 26 }, height: 110, description: "KL per component", data: { values },
    mark: { type: "bar", color: DATA, opacity: 0.6 },
    encoding: {
      x: { field: "component", type: "nominal", sort: null, title: "component", axis: { labelAngle: 0, ticks: false } },
      y: { field: "nats", type: "quantitative", title: "KL, nats", axis: { tickCount: 4 } },
    },
  };
}

// Shares of draws less shares of data: blue where draws are too few, orange where they are too many.
function pairSpec(pair, most) {
  const [first, second] = pair.levels;
  const values = first.flatMap((a, i) => second.map((b, j) => {
    const apart = pair.draws[i][j] - pair.data[i][j];
    return { a, b, apart, strength: Math.min(1, Math.abs(apart) / most), side: apart < 0 ? "too few draws" : "too many draws" };
  }));
  const axis = { ticks: false, domain: false, labelLimit: 90, labelColor: INK, labelFontSize: 10.5 };
  const x = { field: "b", type: "nominal", sort: null, scale: { domain: second }, title: pair.columns[1], axis: { ...axis, labelAngle: -35 } };
  const y = { field: "a", type: "nominal", sort: null, scale: { domain: first }, title: pair.columns[0], axis };
  return {
    width: Math.max(150, 26 * second.length), height: 22 * first.length,
    description: `${pair.columns[0]} and ${pair.columns[1]}: draws less data`,
    layer: [
      { data: { values }, mark: { type: "rect", stroke: RULE, strokeWidth: 0.5 },
        encoding: { x, y,
          color: { field: "side", type: "nominal", legend: null,
            scale: { domain: ["too few draws", "too many draws"], range: [DATA, DRAWS] } },
          opacity: { field: "strength", type: "quantitative", legend: null, scale: { domain: [0, 1], range: [0, 1] } } } },
      selectedLayer({ x, y }, { type: "rect", fill: null, stroke: INK, strokeWidth: 2.4 }),
    ],
  };
}
