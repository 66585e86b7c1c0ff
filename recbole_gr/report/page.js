// What every page does: sort tables, copy commands, draw figures in the colours of the system.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");

function unpacking(name) {
  const text = atob(document.getElementById(name).textContent), raw = new Uint8Array(text.length);
  for (let i = 0; i < raw.length; i++) raw[i] = text.charCodeAt(i);
  return new Response(new Blob([raw]).stream().pipeThrough(new DecompressionStream("gzip")));
}
/** The data of an element that `packed_script` wrote, as text. */
const unpacked = name => unpacking(name).text();
/** The same as bytes. */
const unpackedBytes = async name => new Uint8Array(await unpacking(name).arrayBuffer());

let library;
/** Plotly, which lies compressed in the page; run once, when the first figure asks for it. */
function plotly() {
  return library ??= unpacked("plotly").then(text => {
    const script = document.createElement("script");
    script.textContent = text;
    document.head.append(script);
    return globalThis.Plotly;
  });
}

const isObject = value => value !== null && typeof value === "object" && !Array.isArray(value);
function merged(below, above) {
  const whole = { ...below };
  for (const [key, value] of Object.entries(above))
    whole[key] = isObject(value) && isObject(whole[key]) ? merged(whole[key], value) : value;
  return whole;
}

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A layout with the colours that hold now, for every axis that it names. */
function themed(layout) {
  const axis = { gridcolor: colour("--line"), zerolinecolor: colour("--line"), linecolor: colour("--line"),
    automargin: true };
  const base = { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
    font: { family: "system-ui, sans-serif", size: 12, color: colour("--text") },
    margin: { l: 45, r: 15, t: 12, b: 40 }, xaxis: axis, yaxis: axis,
    legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom" },
    hoverlabel: { bgcolor: colour("--panel"), font: { color: colour("--text") } } };
  return merged(base, layout);
}

const places = new Map(); // element -> the figure that it shows
async function draw(place, figure) {
  const Plotly = await plotly();
  places.set(place, figure);
  await Plotly.react(place, JSON.parse(JSON.stringify(figure.data)), themed(JSON.parse(JSON.stringify(figure.layout))),
    { displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "", // no upload
      modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] });
}

async function drawAll() {
  for (const place of document.querySelectorAll(".plot")) {
    const script = place.querySelector(":scope > script[type='application/json']");
    if (!script) continue;
    const figure = JSON.parse(script.textContent);
    script.remove();
    await draw(place, figure);
  }
  document.documentElement.dataset.drawn = "yes";
}

function sortBy(button) {
  const head = button.closest("th"), column = head.cellIndex, body = head.closest("table").tBodies[0];
  const down = head.ariaSort ? head.ariaSort === "ascending" : body.rows[0]?.cells[column].dataset.v !== undefined;
  for (const other of head.parentElement.cells) other.ariaSort = null;
  head.ariaSort = down ? "descending" : "ascending";
  const sign = down ? -1 : 1;
  const rows = [...body.rows].map(row => {
    const cell = row.cells[column], text = cell.textContent;
    return { row, text, empty: text === "-", value: cell.dataset.v === undefined ? NaN : Number(cell.dataset.v) };
  });
  rows.sort((a, b) => a.empty - b.empty || (Number.isNaN(a.value) || Number.isNaN(b.value)
    ? sign * a.text.localeCompare(b.text, "en", { numeric: true }) : sign * (a.value - b.value)));
  body.append(...rows.map(entry => entry.row));
}

async function copy(button) {
  const text = button.parentElement.querySelector("pre").textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page from a disk may not be allowed to
    const range = document.createRange();
    range.selectNodeContents(button.parentElement.querySelector("pre"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    document.execCommand("copy");
  }
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}

document.addEventListener("click", event => {
  const button = event.target.closest("button");
  if (button?.closest("thead")) sortBy(button);
  else if (button?.closest(".command")) copy(button);
});
document.addEventListener("toggle", event => { // a figure that was folded had no width
  for (const place of event.target.querySelectorAll?.(".plot") ?? [])
    if (places.has(place)) globalThis.Plotly.Plots.resize(place);
}, true);
dark.addEventListener("change", () => { for (const [place, figure] of places) draw(place, figure); });
drawAll();
