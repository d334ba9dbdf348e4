// The map: rows in a plane, in tabs; a click on a point selects its row, on an empty place decodes it.
"use strict";

const WIDTH = fitting(540), HEIGHT = Math.round(WIDTH * 0.815);

function mapData(told, tab, color) {
  const legend = told.rows.colors.find((one) => one.name === color);
  const others = legend && legend.type === "category" ? new Set(legend.levels) : null;
  const raw = !legend ? told.rows.surprise : legend.values || told.rows.cells[legend.column];
  const clock = legend && legend.column !== null && told.columns[legend.column] && told.columns[legend.column].clock;
  const value = (cell) => {
    if (cell === null) return null;
    if (others) return others.has(String(cell)) ? String(cell) : "other";
    return clock ? Date.parse(cell) : typeof cell === "string" ? Date.parse(cell) : Number(cell);
  };
  return {
    legend, clock,
    points: tab.x.map((x, i) => ({ x, y: tab.y[i], i, c: value(raw[i]) })),
  };
}

function mapSpec(told, tab, color) {
  const { legend, clock, points } = mapData(told, tab, color);
  const { low, high, n, cells } = tab.empty;
  const size = [(high[0] - low[0]) / n, (high[1] - low[1]) / n];
  const hatched = cells.map((cell) => {
    const [i, j] = [Math.floor(cell / n), cell % n];
    return { x: low[0] + i * size[0], x2: low[0] + (i + 1) * size[0], y: low[1] + j * size[1], y2: low[1] + (j + 1) * size[1] };
  });
  const scale = (k) => ({ domain: [low[k], high[k]], nice: false, zero: false });
  const axis = tab.labels[0] ? {} : { labels: false, ticks: false };
  const x = { field: "x", type: "quantitative", scale: scale(0), title: tab.labels[0] || null, axis };
  const y = { field: "y", type: "quantitative", scale: scale(1), title: tab.labels[1] || null, axis: tab.labels[1] ? axis : { labels: false, ticks: false } };
  const category = legend && legend.type === "category";
  const known = points.map((point) => point.c).filter((c) => c !== null).sort((a, b) => a - b);
  const span = [known[Math.floor(0.01 * known.length)], known[Math.floor(0.99 * (known.length - 1))]];
  const title = legend ? legend.name : "surprise, nats";
  const levels = category ? [...legend.levels.filter((one) => one !== "other"), ...(points.some((p) => p.c === "other") ? ["other"] : [])] : [];
  const range = levels.map((level, k) => (level === "other" ? SOFT : COLORS[k % COLORS.length]));
  const encoding = { x, y };
  if (category) {
    encoding.color = { field: "c", type: "nominal", title, sort: levels, scale: { domain: levels, range } };
    encoding.shape = { field: "c", type: "nominal", title, sort: levels, scale: { domain: levels, range: levels.map((_, k) => SHAPES[k % SHAPES.length]) } };
  } else {
    encoding.color = { field: "c", type: clock ? "temporal" : "quantitative", title,
      scale: { domain: span, clamp: true, scheme: "viridis" } };
  }
  if (NARROW) for (const one of [encoding.color, encoding.shape]) if (one) one.legend = { orient: "bottom", columns: 2 };
  const ring = { x: { ...x }, y: { ...y } };
  return {
    width: WIDTH, height: HEIGHT, padding: 4, description: `${tab.name}, coloured by ${title}`,
    layer: [
      ...(told.plane && tab.key === "codes" ? [{ data: { values: [{}] }, mark: { type: "image", url: told.plane, width: WIDTH, height: HEIGHT,
        aspect: false, opacity: 0.3 }, encoding: { x: { value: WIDTH / 2 }, y: { value: HEIGHT / 2 } } }] : []),
      { data: { values: hatched }, mark: { type: "rect", fill: told.plane && tab.key === "codes" ? "url(#hatch-strong)" : "url(#hatch)", stroke: null },
        encoding: { x: { ...x, field: "x" }, x2: { field: "x2" }, y: { ...y, field: "y" }, y2: { field: "y2" } } },
      { data: { values: points.filter((p) => p.c === null) }, mark: { type: "point", filled: true, size: 18, color: SOFT, opacity: 0.45, cursor: "pointer" }, encoding: { x, y } },
      { data: { values: points.filter((p) => p.c !== null) },
        mark: { type: "point", filled: true, size: Math.min(46, Math.max(18, 16000 / points.length)), opacity: 0.85, cursor: "pointer",
          ...(told.plane ? { stroke: "var(--paper)", strokeWidth: 0.6 } : {}) }, encoding },
      selectedLayer(ring, { type: "point", filled: false, size: 260, strokeWidth: 2.6 }),
      { data: { name: "place", values: [] }, mark: { type: "point", shape: "cross", filled: true, size: 170, color: DRAWS, stroke: "var(--paper)", strokeWidth: 1 }, encoding: ring },
    ],
  };
}

// Data coordinates of a click, from the frame that is drawn around the plot.
function placeOf(event, element, tab) {
  const box = element.querySelector(".role-frame .background").getBoundingClientRect();
  const { low, high } = tab.empty;
  const x = low[0] + ((event.clientX - box.left) / box.width) * (high[0] - low[0]);
  const y = high[1] - ((event.clientY - box.top) / box.height) * (high[1] - low[1]);
  return x < low[0] || x > high[0] || y < low[1] || y > high[1] ? null : [x, y];
}

function isEmpty(tab, [x, y]) {
  const { low, high, n, cells } = tab.empty;
  const i = Math.floor((n * (x - low[0])) / (high[0] - low[0])), j = Math.floor((n * (y - low[1])) / (high[1] - low[1]));
  return cells.includes(i * n + j);
}
