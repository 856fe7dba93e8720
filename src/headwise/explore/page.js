"use strict";
// The page of `headwise explore`. Plotly draws the points; everything else is plain DOM.
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const plot = byId("plot"), map = byId("map");

// ---- The table ----

function bytes(text) {
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}
const floats = (text) => new Float32Array(bytes(text).buffer);
const ints = (text) => new Int32Array(bytes(text).buffer);

const xs = floats(data.x), ys = floats(data.y), n = xs.length, k = data.k;
const neighbours = new Uint32Array(bytes(data.neighbours).buffer);
const similarities = floats(data.similarities);
const slots = ints(data.slots), paths = data.paths;
const split = data.split && { names: data.split.names, codes: ints(data.split.codes) };
const columns = data.colours.map((one) => one.names
  ? { ...one, codes: ints(one.codes) }
  : { ...one, values: floats(one.values) });
const labelColumn = columns.find((one) => one.name === "label");
const labelOf = (row) => {
  const code = labelColumn ? labelColumn.codes[row] : -1;
  return code < 0 ? "" : labelColumn.names[code];
};
const number = (value) => Number.isFinite(value) ? String(+value.toPrecision(3)) : "none";
const amount = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

// ---- Thumbnails: places on sheets, which are decoded when they are first shown ----

const sheets = new Map(), perSheet = data.perSheet;
function sheet(i) {
  if (!data.packed) return data.sheets[i].split("/").map(encodeURIComponent).join("/");
  if (!sheets.has(i)) {
    sheets.set(i, URL.createObjectURL(new Blob([bytes(data.sheets[i])], { type: "image/jpeg" })));
  }
  return sheets.get(i);
}
function thumbnail(row, side, words = "") {
  const out = document.createElement("span"), slot = slots[row];
  out.className = slot < 0 ? "thumb none" : "thumb";
  out.style.width = out.style.height = `${side}px`;
  if (words) {
    out.setAttribute("role", "img");
    out.setAttribute("aria-label", words);
  }
  if (slot >= 0) {
    const place = slot % (perSheet * perSheet), last = perSheet - 1;
    out.style.backgroundImage = `url("${sheet(Math.floor(slot / perSheet / perSheet))}")`;
    out.style.backgroundSize = `${100 * perSheet}%`;
    out.style.backgroundPosition =
      `${(100 * (place % perSheet)) / last}% ${(100 * Math.floor(place / perSheet)) / last}%`;
  }
  return out;
}
document.body.classList.toggle("small", data.px <= 48);

function element(name, text, values = {}) {
  const out = Object.assign(document.createElement(name), values);
  if (text !== undefined) out.textContent = text;
  return out;
}

// ---- Colours: a trace for each, of one colour, which Plotly draws fastest ----

// Okabe and Ito's colours as in the report, then Tol's.
const LIGHT = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A",
  "#882255", "#999933", "#44AA99", "#AA4499", "#8C510A"];
const DARK = ["#4AA3DF", "#FF7F3F", "#2EC49A", "#E39BC7", "#F5B942", "#A5DCFA", "#A8A8A8",
  "#D9609B", "#C6C65A", "#78D6C6", "#C77DDB", "#C08A55"];
const night = matchMedia("(prefers-color-scheme: dark)");
let palette = night.matches ? DARK : LIGHT;
const SYMBOLS = ["circle", "square", "triangle-up", "diamond"];
const SHAPES = ["M6 1a5 5 0 1 1-.01 0", "M1.5 1.5h9v9h-9z", "M6 1l5.5 10h-11z", "M6 0l6 6-6 6-6-6z"];
const NONE = "#9aa2aa";
const size = (n < 2000 ? 8 : n < 8000 ? 6 : n < 25000 ? 4.5 : 3.5) * (innerWidth < 500 ? 0.75 : 1);
const given = new Map(); // the labels that were given, by row
let groups = [], colouring, hidden = new Set();

function givenColumn() {
  const names = [...new Set(given.values())].sort(), codes = new Int32Array(n).fill(-1);
  for (const [row, name] of given) codes[row] = names.indexOf(name);
  return { name: "labels given here", names, codes };
}
function bins(column) { // numbers as colours of the scale
  const count = data.scale.length, codes = new Int32Array(n), span = column.high - column.low || 1;
  for (let i = 0; i < n; i++) {
    const at = Math.floor(((column.values[i] - column.low) / span) * count);
    codes[i] = Number.isNaN(at) ? -1 : Math.max(0, Math.min(count - 1, at));
  }
  return codes;
}
function regroup() {
  const column = colouring === "given" ? givenColumn() : columns[colouring];
  const codes = column.codes || bins(column), of = new Map();
  for (let i = 0; i < n; i++) {
    if (!of.has(codes[i])) of.set(codes[i], []);
    of.get(codes[i]).push(i);
  }
  groups = [...of.keys()].sort((a, b) => a - b).map((code) => ({
    rows: of.get(code),
    name: code < 0 ? "none" : column.names ? column.names[code] : "",
    colour: code < 0 ? NONE : column.names ? palette[code % palette.length] : data.scale[code],
    symbol: code < 0 || !column.names ? 0 : Math.floor(code / palette.length) % SYMBOLS.length,
  }));
  legend(column);
}
function legend(column) {
  const box = byId("legend");
  if (!column.names) {
    const bar = element("i");
    bar.style.background = `linear-gradient(90deg, ${data.scale.join()})`;
    const scale = element("span", undefined, { className: "scale" });
    scale.append(number(column.low), bar, number(column.high));
    scale.title = "1 % of the images lie below this scale, and 1 % above it";
    box.replaceChildren(scale);
    return;
  }
  box.replaceChildren(...groups.map((group) => {
    const button = element("button", undefined, { type: "button" });
    button.setAttribute("aria-pressed", String(!hidden.has(group.name)));
    button.innerHTML = `<svg viewBox="0 0 12 12" aria-hidden="true"><path fill="${group.colour}" d="${SHAPES[group.symbol]}"/></svg>`;
    const count = element("span", group.rows.length.toLocaleString("en"), { className: "count" });
    button.append(element("span", group.name), count);
    button.onclick = () => {
      if (!hidden.delete(group.name)) hidden.add(group.name);
      button.setAttribute("aria-pressed", String(!hidden.has(group.name)));
      draw();
    };
    return button;
  }));
}
const isShown = (group) => !hidden.has(group.name);

// ---- The map ----

// What is in view: its centre, and the units of a pixel.
const view = { x: 0, y: 0, unit: 1 };
let drawn = { ...view }, drawing = false, cost = Infinity, resting = 0, mode = "move";
const webgl = (() => {
  const context = document.createElement("canvas").getContext("webgl");
  context?.getExtension("WEBGL_lose_context")?.loseContext();
  return Boolean(context);
})();

function whole() {
  let left = Infinity, right = -Infinity, low = Infinity, high = -Infinity;
  for (let i = 0; i < n; i++) {
    left = Math.min(left, xs[i]); right = Math.max(right, xs[i]);
    low = Math.min(low, ys[i]); high = Math.max(high, ys[i]);
  }
  view.x = (left + right) / 2;
  view.y = (low + high) / 2;
  const across = (right - left) / Math.max(1, map.clientWidth - 40);
  const up = (high - low) / Math.max(1, map.clientHeight - 40);
  view.unit = Math.max(across, up) || 0.01;
}
function ranges(at) {
  const w = (map.clientWidth / 2) * at.unit, h = (map.clientHeight / 2) * at.unit;
  return { "xaxis.range": [at.x - w, at.x + w], "yaxis.range": [at.y - h, at.y + h] };
}
function draw() {
  const masked = selection.count > 0, at = ranges(view);
  const traces = groups.map((group) => ({
    type: webgl ? "scattergl" : "scatter",
    mode: "markers",
    x: Float32Array.from(group.rows, (row) => xs[row]),
    y: Float32Array.from(group.rows, (row) => ys[row]),
    hoverinfo: "none",
    visible: isShown(group),
    marker: { size, color: group.colour, symbol: SYMBOLS[group.symbol], opacity: 0.8 },
    selectedpoints: masked ? within(group) : undefined,
    selected: { marker: { opacity: 1 } },
    unselected: { marker: { opacity: 0.12 } },
  }));
  const axis = { visible: false, fixedrange: true };
  const layout = {
    xaxis: { ...axis, range: at["xaxis.range"] },
    yaxis: { ...axis, range: at["yaxis.range"] },
    margin: { l: 0, r: 0, t: 0, b: 0 },
    width: map.clientWidth, height: map.clientHeight,
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    showlegend: false, hovermode: "closest", selections: [],
    dragmode: mode === "lasso" ? "lasso" : false,
  };
  const config = { displayModeBar: false, doubleClick: false,
    plotGlPixelRatio: Math.min(2, window.devicePixelRatio || 1) };
  drawn = { ...view };
  return Plotly.react(plot, traces, layout, config).then(placed);
}
function within(group) {
  const places = [];
  group.rows.forEach((row, i) => { if (selection.mask[row]) places.push(i); });
  return places;
}

// While the map moves, the picture that is there is moved and scaled. It is drawn anew as often as
// the machine can: all the time with a graphics card, when the hand rests without one.
function placed() {
  const scale = drawn.unit / view.unit, layer = plot.querySelector(".gl-container");
  const left = (map.clientWidth / 2) * (1 - scale) + (drawn.x - view.x) / view.unit;
  const top = (map.clientHeight / 2) * (1 - scale) - (drawn.y - view.y) / view.unit;
  const same = scale === 1 && left === 0 && top === 0;
  for (const one of [layer, ...plot.querySelectorAll(".scatterlayer")]) {
    if (one) one.style.transform = same ? "" : `translate(${left}px, ${top}px) scale(${scale})`;
  }
  ring();
}
function moved() {
  hideCard();
  placed();
  clearTimeout(resting);
  if (cost < 80) redraw();
  else resting = setTimeout(redraw, 160);
}
async function redraw() {
  if (drawing) return;
  drawing = true;
  const start = performance.now(), target = { ...view };
  await Plotly.relayout(plot, ranges(target));
  drawn = target;
  placed();
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  cost = performance.now() - start;
  drawing = false;
  if (view.x !== drawn.x || view.y !== drawn.y || view.unit !== drawn.unit) moved();
}
function zoom(factor, px = map.clientWidth / 2, py = map.clientHeight / 2) {
  const dx = px - map.clientWidth / 2, dy = map.clientHeight / 2 - py;
  view.x += dx * view.unit * (1 - factor);
  view.y += dy * view.unit * (1 - factor);
  view.unit *= factor;
  moved();
}
const toPixels = (row) => [
  map.clientWidth / 2 + (xs[row] - view.x) / view.unit,
  map.clientHeight / 2 - (ys[row] - view.y) / view.unit,
];

const fingers = new Map();
let modifiers = {};
map.addEventListener("pointerdown", (event) => {
  modifiers = { add: event.shiftKey, remove: event.altKey };
  if (mode === "move" && event.button === 0) {
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  }
}, true);
window.addEventListener("pointermove", (event) => {
  const finger = fingers.get(event.pointerId);
  if (!finger) return;
  const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
  const here = { x: event.clientX, y: event.clientY };
  if (other) {
    const box = map.getBoundingClientRect();
    const before = Math.hypot(finger.x - other.x, finger.y - other.y);
    const after = Math.hypot(here.x - other.x, here.y - other.y);
    if (before && after) {
      zoom(before / after, (here.x + other.x) / 2 - box.left, (here.y + other.y) / 2 - box.top);
    }
  }
  const share = fingers.size > 1 ? 0.5 : 1;
  view.x -= (here.x - finger.x) * view.unit * share;
  view.y += (here.y - finger.y) * view.unit * share;
  Object.assign(finger, here);
  map.classList.add("dragging");
  moved();
});
for (const end of ["pointerup", "pointercancel"]) {
  window.addEventListener(end, (event) => {
    fingers.delete(event.pointerId);
    if (!fingers.size) map.classList.remove("dragging");
  });
}
map.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = map.getBoundingClientRect(), lines = event.deltaMode ? 18 : 1;
  const turned = Math.max(-240, Math.min(240, event.deltaY * lines));
  zoom(Math.exp(turned / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false, capture: true });

const rowAt = (event) => groups[event.points[0].curveNumber].rows[event.points[0].pointNumber];

// ---- One image ----

let current = -1;
function show(row) {
  current = row;
  const side = Math.min(160, Math.max(112, data.px)), facts = element("dl");
  const fact = (name, value) => facts.append(element("dt", name), element("dd", value));
  if (given.has(row)) fact("label given", given.get(row));
  for (const column of columns) {
    if (!column.names) fact(column.name, number(column.values[row]));
    else if (column.codes[row] >= 0) fact(column.name, column.names[column.codes[row]]);
  }
  const box = element("div", undefined, { className: "shown" }), words = element("div");
  const toggle = element("button", selection.mask[row] ? "Take out" : "Select", { type: "button" });
  toggle.onclick = () => flip(row);
  words.append(element("h3", paths[row]), facts);
  box.append(thumbnail(row, side, paths[row]), words);
  const below = element("div", undefined, { className: "row" });
  below.style.margin = ".7rem 0 0";
  below.append(toggle);
  byId("image").replaceChildren(box, below);
  byId("near-title").hidden = k === 0;
  byId("near-title").textContent = "Nearest neighbours in h, with their similarity";
  byId("nearest").replaceChildren(...Array.from({ length: k }, (_, i) => {
    const near = neighbours[row * k + i], similar = similarities[row * k + i].toFixed(2);
    const item = element("li"), button = element("button", undefined, { type: "button" });
    const name = labelOf(near);
    button.title = paths[near];
    button.setAttribute("aria-label", `${paths[near]}${name && `, ${name}`}, similarity ${similar}`);
    button.append(thumbnail(near, 64), element("small", similar), element("small", name));
    button.onclick = () => show(near);
    item.append(button);
    return item;
  }));
  ring();
}
function ring() {
  const mark = byId("ring");
  mark.hidden = current < 0;
  if (current < 0) return;
  const [x, y] = toPixels(current);
  mark.style.transform = `translate(${x}px, ${y}px)`;
}
const card = byId("card");
function hideCard() { card.hidden = true; }
function hover(event) {
  if (fingers.size && map.classList.contains("dragging")) return;
  const row = rowAt(event), words = element("span");
  const name = labelOf(row), own = given.get(row);
  words.append(element("b", own === undefined ? name || "no label" : own), paths[row]);
  card.replaceChildren(thumbnail(row, Math.min(112, Math.max(80, data.px))), words);
  card.hidden = false;
  const { clientX: x, clientY: y } = event.event, box = card.getBoundingClientRect();
  const left = x + 18 + box.width > innerWidth ? Math.max(4, x - 18 - box.width) : x + 18;
  const top = Math.max(4, Math.min(y + 14, innerHeight - box.height - 4));
  card.style.transform = `translate(${left}px, ${top}px)`;
}

// ---- The selection ----

const selection = { mask: new Uint8Array(n), count: 0 }, PAGE = 50;
let listed = PAGE;
function select(rows, { add = false, remove = false } = {}) {
  if (!add && !remove) selection.mask.fill(0);
  for (const row of rows) selection.mask[row] = remove ? 0 : 1;
  listed = PAGE;
  changed();
  return draw();
}
function flip(row) { select([row], selection.mask[row] ? { remove: true } : { add: true }); }
function selectedRows() {
  const rows = [];
  for (let i = 0; i < n; i++) if (selection.mask[i]) rows.push(i);
  return rows;
}
function changed() {
  const rows = selectedRows();
  selection.count = rows.length;
  byId("count").textContent = rows.length ? `${amount(rows.length, "image")} selected.`
    : "No image is selected. Draw a lasso on the map, or find images by path.";
  for (const id of ["save", "clear"]) byId(id).disabled = !rows.length;
  byId("labelling").querySelector("button").disabled = !rows.length;
  byId("given").textContent = given.size ? `${amount(given.size, "image")} labelled here.` : "";
  byId("save-labels").disabled = !given.size;
  byId("undo").disabled = !undo.length;
  byId("selected").hidden = !rows.length;
  byId("selected").tBodies[0].replaceChildren(...rows.slice(0, listed).map(line));
  byId("more").hidden = rows.length <= listed;
  byId("more").textContent = `Show more (${amount(rows.length - listed, "image")})`;
  const names = new Set([...(labelColumn ? labelColumn.names : []), ...given.values()]);
  byId("labels").replaceChildren(...[...names].map((value) => element("option", undefined, { value })));
  if (current >= 0) show(current);
}
function line(row) {
  const out = element("tr"), cells = [element("td"), element("td", paths[row]), element("td", given.has(row) ? given.get(row) : labelOf(row)), element("td")];
  const open = element("button", undefined, { type: "button", className: "open" });
  open.append(thumbnail(row, 40));
  open.setAttribute("aria-label", `Show ${paths[row]}`);
  open.onclick = () => show(row);
  const away = element("button", "×", { type: "button" });
  away.setAttribute("aria-label", `Take ${paths[row]} out of the selection`);
  away.onclick = () => select([row], { remove: true });
  cells[0].append(open);
  cells[3].append(away);
  out.append(...cells);
  return out;
}
function find(text) {
  const wanted = text.trim().toLowerCase(), rows = [];
  if (!wanted) return;
  for (let i = 0; i < n; i++) if (paths[i].toLowerCase().includes(wanted)) rows.push(i);
  select(rows);
  if (rows.length) show(rows[0]);
  else byId("count").textContent = `No path contains ${text.trim()}.`;
}

// ---- Labels and files ----

const undo = [], memory = `headwise-labels-${data.key}`;
function remember() {
  try { localStorage.setItem(memory, JSON.stringify([...given])); } catch { /* not allowed here */ }
}
function recall() {
  try {
    for (const [row, name] of JSON.parse(localStorage.getItem(memory) || "[]")) {
      if (row >= 0 && row < n) given.set(row, String(name));
    }
  } catch { /* not allowed here */ }
}
function label(name) {
  const rows = selectedRows();
  undo.push(rows.map((row) => [row, given.get(row)]));
  for (const row of rows) given.set(row, name);
  labelled();
}
function labelled() {
  remember();
  if (colouring === "given") regroup();
  changed();
  draw();
}
// A spreadsheet takes such cells for formulas. A path means the same after "./".
const formula = (text) => /^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text));
const safePath = (path) => formula(path) ? `./${path}` : path;
const safe = (text) => formula(text) ? `'${text}` : text;
function csv(columns, rows) {
  const cell = (value) => /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  return [columns, ...rows].map((row) => row.map(cell).join()).join("\n") + "\n";
}
function download(name, text) {
  const link = element("a", undefined, { download: name });
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ---- Buttons and keys ----

function setMode(next) {
  mode = next;
  for (const id of ["move", "lasso"]) byId(id).setAttribute("aria-pressed", String(id === next));
  map.classList.toggle("lasso", next === "lasso");
  return Plotly.relayout(plot, { dragmode: next === "lasso" ? "lasso" : false });
}
function step(dx, dy) { // the nearest image on this side
  const from = current < 0 ? [view.x, view.y] : [xs[current], ys[current]];
  let best = -1, least = Infinity;
  for (const group of groups.filter(isShown)) {
    for (const row of group.rows) {
      const x = xs[row] - from[0], y = ys[row] - from[1], along = x * dx + y * dy;
      const aside = Math.abs(x * dy) + Math.abs(y * dx);
      if (row === current || along <= 0 || aside > along) continue;
      const far = along + 2 * aside;
      if (far < least) { least = far; best = row; }
    }
  }
  if (best < 0) return;
  show(best);
  byId("spoken").textContent = `${paths[best]} ${labelOf(best)}`;
  const [x, y] = toPixels(best);
  if (x < 20 || y < 20 || x > map.clientWidth - 20 || y > map.clientHeight - 20) {
    [view.x, view.y] = [xs[best], ys[best]];
    moved();
  }
}
const KEYS = {
  ArrowLeft: () => step(-1, 0), ArrowRight: () => step(1, 0),
  ArrowUp: () => step(0, 1), ArrowDown: () => step(0, -1),
  "+": () => zoom(0.7), "=": () => zoom(0.7), "-": () => zoom(1 / 0.7),
  0: () => { whole(); moved(); }, " ": () => { if (current >= 0) flip(current); },
};
map.addEventListener("keydown", (event) => {
  const act = event.ctrlKey || event.metaKey ? undefined : KEYS[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
byId("move").onclick = () => setMode("move");
byId("lasso").onclick = () => setMode("lasso");
byId("closer").onclick = KEYS["+"];
byId("farther").onclick = KEYS["-"];
byId("whole").onclick = KEYS[0];
byId("clear").onclick = () => select([]);
byId("shown").onclick = () => select(groups.filter(isShown).flatMap((group) => group.rows));
byId("more").onclick = () => { listed += 4 * PAGE; changed(); };
byId("finding").onsubmit = (event) => { event.preventDefault(); find(byId("find").value); };
byId("labelling").onsubmit = (event) => {
  event.preventDefault();
  if (byId("label").value.trim()) label(byId("label").value.trim());
};
byId("undo").onclick = () => {
  for (const [row, before] of undo.pop()) {
    if (before === undefined) given.delete(row);
    else given.set(row, before);
  }
  labelled();
};
byId("save").onclick = () => download("selection.csv", csv(["path", "label", "split"],
  selectedRows().map((row) => [safePath(paths[row]), safe(labelOf(row)), split ? split.names[split.codes[row]] : ""])));
byId("save-labels").onclick = () => download("labels.csv", csv(["path", "label"],
  [...given].sort(([a], [b]) => a - b).map(([row, name]) => [safePath(paths[row]), safe(name)])));
byId("colour").onchange = (event) => {
  colouring = event.target.value === "given" ? "given" : Number(event.target.value);
  hidden = new Set();
  regroup();
  draw();
};

// ---- Start ----

map.append(element("p", "", { id: "spoken", className: "sr" }));
byId("spoken").setAttribute("aria-live", "polite");
map.setAttribute("aria-label", `Map of ${amount(n, "image")}`);
byId("colour").append(
  ...columns.map((one, i) => element("option", one.name, { value: i })),
  element("option", "labels given here", { value: "given" }));
colouring = 0;
recall();
regroup();
changed();
whole();
draw().then(() => {
  byId("wait").remove();
  plot.on("plotly_hover", hover);
  plot.on("plotly_unhover", hideCard);
  plot.on("plotly_click", (event) => { if (mode === "move") show(rowAt(event)); });
  plot.on("plotly_selected", () => {
    const rows = plot.data.flatMap((trace, i) =>
      Array.from(trace.selectedpoints || [], (place) => groups[i].rows[place]));
    hideCard();
    select(rows, modifiers);
  });
  night.addEventListener("change", () => {
    palette = night.matches ? DARK : LIGHT;
    regroup();
    draw();
  });
  map.addEventListener("pointerleave", hideCard);
  new ResizeObserver(() => {
    if (map.clientWidth !== plot.layout.width || map.clientHeight !== plot.layout.height) draw();
  }).observe(map);
  document.documentElement.dataset.ready = String(performance.now());
});
})();
