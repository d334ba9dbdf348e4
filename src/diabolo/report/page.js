// One selection for the whole page: a row, or a place of the map.
"use strict";

const told = JSON.parse(document.getElementById("told").textContent);
const small = unpacked(told.decoder);
const plane = told.maps[0];
// a plane that holds little of many codes says little: the page then opens at their t-SNE, if that keeps more neighbours
const better = plane.share < 0.5 ? told.maps.findIndex((tab) => tab.key === "tsne" && tab.trustworthiness > plane.trustworthiness) : 0;
const state = { tab: Math.max(better, 0), color: null, row: null, place: null };
const views = { map: null, others: [] }; // others: [view, row number -> rows of its data set "selected"]

const MINUS = "\u2212";
const signed = (value, digits = 2) => value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace("-", MINUS);
const SIGNS = { bound: "≥", estimate: "≈", exact: "=" };

function written(value, decimals) {
  if (value === null || value === undefined) return "·";
  if (typeof value !== "number") return String(value);
  if (decimals === null || decimals === undefined) return String(Number(value.toPrecision(6))).replace("-", MINUS);
  return value.toLocaleString("en", { minimumFractionDigits: decimals, maximumFractionDigits: decimals,
    useGrouping: Math.abs(value) >= 10000 }).replace("-", MINUS);
}

function asDate(column, value) {
  return column.clock && typeof value === "number" ? new Date(value * DAY).toISOString().slice(0, 10) : value;
}

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function picture(i, zoom = 4) {
  const [height, width] = told.image_shape, { address, n_columns, n_lines } = told.sheet;
  const made = element("div", { class: "thumb", role: "img", "aria-label": told.rows.labels[i] });
  Object.assign(made.style, { width: `${width * zoom}px`, height: `${height * zoom}px`, backgroundImage: `url(${address})`,
    backgroundSize: `${n_columns * width * zoom}px ${n_lines * height * zoom}px`,
    backgroundPosition: `-${(i % n_columns) * width * zoom}px -${Math.floor(i / n_columns) * height * zoom}px` });
  return made;
}

function painted(values) {
  const [height, width, depth = 1] = told.image_shape, top = Math.max(1, ...told.decoder.columns.map((rule) => rule.top || 0));
  const canvas = element("canvas", { width, height, class: "thumb" });
  const low = told.decoder.low ?? 0, high = told.decoder.high ?? top, context = canvas.getContext("2d"), image = context.createImageData(width, height);
  for (let p = 0; p < width * height; p++)
    for (let c = 0; c < 4; c++)
      image.data[4 * p + c] = c === 3 ? 255 : (255 * (values[p * depth + (depth === 1 ? 0 : c)] - low)) / (high - low);
  context.putImageData(image, 0, 0);
  Object.assign(canvas.style, { width: `${width * 5}px`, height: `${height * 5}px` });
  return canvas;
}

function rowsOf(pairs) {
  return element("table", {}, element("tbody", {}, ...pairs.map(([name, value, column]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", column && column.is_number ? { class: "number" } : {}, value)))));
}

function aboutRow(i) {
  const rows = told.rows, box = document.getElementById("about");
  const facts = rows.log_density[i] === null ? `log p is ${MINUS}∞` :
    `log p ${SIGNS[rows.kind[i]] || ""} ${signed(rows.log_density[i])} nats, ${signed(rows.gain[i], 1)} more than independent ${told.image_shape ? "pixels" : "columns"} give`;
  const whose = told.density.judged_by === "held out" ? "held-out rows" : "rows looked at";
  box.replaceChildren(element("h3", {}, rows.labels[i]),
    element("p", { class: "note" }, `${facts}. More surprising than ${rows.percentile[i].toFixed(0)} % of the ${whose}.`));
  if (told.sheet) box.append(picture(i, Math.max(4, Math.round(140 / Math.max(...told.image_shape.slice(0, 2))))));
  if (rows.cells) box.append(rowsOf(told.columns.map((column, j) => [column.name, written(rows.cells[j][i], column.decimals), column])));
}

function aboutPlace([x, y]) {
  const box = document.getElementById("about"), code = codeAt(x, y);
  const empty = isEmpty(plane, [x, y]) ? " No row is near: what the model says here rests on nothing seen." : "";
  box.replaceChildren(element("h3", {}, "A place of the map, decoded"));
  if (!small) {
    box.append(element("p", { class: "note" }, `The decoder does not run in this page: ${told.decoder.why_not}.`));
    return;
  }
  const density = small.prior && logPrior(small, code);
  const said = density === null ? "" : `This place is denser than ${denserThan(small, density)} % of the codes that the model draws (log p(z) = ${signed(density)} nats, exact).`;
  box.append(element("p", { class: "note" }, said + empty));
  const cells = decoded(small, code);
  if (told.image_shape) box.append(painted(cells.map((cell) => cell.value)));
  else box.append(rowsOf(cells.map(({ column, value }) => [told.columns[column].name,
    written(asDate(told.columns[column], value), told.columns[column].decimals), told.columns[column]])));
}

function codeAt(x, y) {
  const { centre, axes } = plane;
  return centre.map((middle, k) => middle + x * axes[0][k] + (axes[1] ? y * axes[1][k] : 0));
}

function show() {
  const i = state.row, tab = told.maps[state.tab];
  document.querySelectorAll("[data-place]").forEach((one) => one.classList.toggle("selected", i !== null && Number(one.dataset.place) === told.rows.places[i]));
  if (views.map) {
    views.map.data("selected", i === null ? [] : [{ x: tab.x[i], y: tab.y[i] }]);
    views.map.data("place", state.place && state.tab === 0 ? [{ x: state.place[0], y: state.place[1] }] : []).run();
  }
  for (const [view, rowsFor] of views.others) view.data("selected", i === null ? [] : rowsFor(i)).run();
  if (i !== null) aboutRow(i);
  else if (state.place) aboutPlace(state.place);
  const bar = document.getElementById("chosen");
  bar.hidden = i === null;
  if (i !== null) bar.querySelector("strong").textContent = told.rows.labels[i];
}

function select(i) { Object.assign(state, { row: i, place: null }); show(); }
function decodeAt(x, y) { Object.assign(state, { row: null, place: [x, y] }); show(); return small && decoded(small, codeAt(x, y)); }

async function drawMap() {
  const box = document.getElementById("map"), tab = told.maps[state.tab];
  if (views.map) views.map.finalize();
  box.replaceChildren();
  views.map = await draw(box, mapSpec(told, tab, state.color));
  views.map.addEventListener("click", (event, item) => {
    if (item && item.datum && item.datum.i !== undefined) return select(item.datum.i);
    const place = placeOf(event, box, tab);
    if (place && state.tab === 0) decodeAt(...place);
  });
  document.getElementById("trust").textContent = trust(tab);
  document.querySelectorAll("#tabs button").forEach((one, at) => one.setAttribute("aria-selected", at === state.tab));
  show();
}

function trust(tab) {
  const said = { codes: "Rows that the model describes alike lie together.", tsne: "Neighbours are kept, distances and sizes of clouds mean nothing.",
    pca: "The rows' own plane of greatest spread: no model at all." }[tab.key];
  const share = tab.share !== undefined && tab.share < 0.9995 ? ` It holds ${(100 * tab.share).toFixed(0)} % of the codes' variance.` : "";
  if (tab.trustworthiness === null) return said + share;
  return `${said}${share} Trustworthiness ${tab.trustworthiness.toFixed(2)}: 1 where neighbours here are all neighbours in the table, about 0.5 by chance.`;
}

function controls() {
  const tabs = document.getElementById("tabs"), choice = document.getElementById("color");
  told.maps.forEach((tab, at) => {
    const button = element("button", { role: "tab", type: "button" }, tab.name);
    button.addEventListener("click", () => { state.tab = at; drawMap(); });
    tabs.append(button);
  });
  for (const one of [{ name: null }, ...told.rows.colors]) choice.append(element("option", { value: one.name ?? "" }, one.name ?? "surprise"));
  state.color = told.rows.color;
  choice.value = state.color ?? "";
  choice.addEventListener("change", () => { state.color = choice.value || null; drawMap(); });
  document.querySelectorAll("[data-place]").forEach((one) => {
    const at = told.rows.places.indexOf(Number(one.dataset.place));
    if (at < 0) return;
    one.tabIndex = 0;
    one.addEventListener("click", () => select(at));
    one.addEventListener("keydown", (event) => { if (event.key === "Enter") select(at); });
  });
  document.querySelector("#chosen button").addEventListener("click", () => { state.row = null; document.getElementById("about").replaceChildren(); show(); });
}

async function columnCharts() {
  for (const [j, column] of told.columns.entries()) {
    const box = document.getElementById(`spread-${j}`), spread = column.spread;
    if (!box || !spread) continue;
    const description = `${column.name}: data and draws`, cells = told.rows.cells && told.rows.cells[j];
    const spec = spread.type === "number" ? histogramSpec(spread, { width: 210, height: 44, description }) : levelsSpec(spread, { width: 120, description });
    const view = await draw(box, spec);
    if (!cells) continue;
    const others = spread.levels && new Set(spread.levels);
    views.others.push([view, (i) => {
      const cell = cells[i];
      if (cell === null) return [];
      if (!others) return [{ at: column.clock ? Date.parse(cell) : Number(cell) }];
      return [{ at: others.has(String(cell)) ? String(cell) : "other" }];
    }]);
  }
}

async function start() {
  controls();
  await drawMap();
  const surprise = document.getElementById("surprise");
  const view = await draw(surprise, histogramSpec(told.density.histogram, { width: fitting(560), height: 130, title: `${MINUS}log p(x), nats`, description: "Minus the log-density of data and of draws" }));
  views.others.push([view, (i) => (told.rows.log_density[i] === null ? [] : [{ at: -told.rows.log_density[i] }])]);
  await columnCharts();
  for (const [at, pair] of (told.pairs ? told.pairs.shown : []).entries()) {
    const most = Math.max(...pair.data.flatMap((line, i) => line.map((share, j) => Math.abs(pair.draws[i][j] - share))), 0.02);
    const view = await draw(document.getElementById(`pair-${at}`), pairSpec(pair, most));
    const [first, second] = pair.classes, known = (i) => first.length && first[i] >= 0 && second[i] >= 0;
    views.others.push([view, (i) => (known(i) ? [{ a: pair.levels[0][first[i]], b: pair.levels[1][second[i]] }] : [])]);
  }
  if (told.draws.nearest) await draw(document.getElementById("nearest"), histogramSpec(told.draws.nearest.histogram, { width: fitting(420), height: 110,
    title: "distance to the nearest row, in spreads of the columns", description: "Distances of draws and of data to their nearest row" }));
  if (told.components.divergence) await draw(document.getElementById("divergence"), divergenceSpec(told.components.divergence));
  await draw(document.getElementById("loss"), lossSpec(told.training));
  document.documentElement.dataset.ready = "yes";
}

window.diabolo = { told, state, select, decodeAt, codeAt };
start();
