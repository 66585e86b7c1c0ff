// The levels of a beam search: beams as columns with links between them, and as tables.

const WIDTH = 200, GAP = 48, HEIGHT = 38, STEP = 44, HEAD = 76, LINE = 17, MARGIN = 12;
const MOST = 20; // beams of a column, besides those that lead to an item of the answer

export const number = (value) => (Math.abs(value) < 0.00005 ? 0 : value).toFixed(4);
export const percent = (p) => `${(100 * p).toPrecision(p < 0.0995 ? 2 : 3)} %`;
export const nameOf = (item) => (item.title ? `${item.title} (${item.item})` : item.item);
const titleOf = (item) => item.title || item.item;
export const several = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;

export function element(name, attributes = {}, text = undefined) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function svg(name, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// Draws the beams of all levels into `place`; `tell` gets the text about the one that is chosen.
// Returns a function that marks the way to an item of the answer by its rank, or none by null.
export function drawTree(place, data, tell) {
  const nodes = [], links = [], canvas = element("div", {class: "canvas"});
  const lines = svg("svg", {"aria-hidden": "true"});
  canvas.append(lines);
  let bottom = 0, above = [];
  data.levels.forEach((level, column) => {
    const left = MARGIN + column * (WIDTH + GAP), here = [];
    const add = (prefix, top, state) => {
      const node = {prefix, column, state, parent: above[prefix.parent], children: []};
      node.button = nodeButton(prefix, state);
      const at = {left, top, width: WIDTH, height: HEIGHT};
      for (const [key, value] of Object.entries(at)) node.button.style[key] = `${value}px`;
      canvas.append(node.button);
      nodes.push(node);
      if (node.parent) {
        node.parent.children.push(node);
        links.push(node.link = link(node, left, top + HEIGHT / 2));
      }
      node.right = {x: left + WIDTH, y: top + HEIGHT / 2};
      return node;
    };
    head(canvas, left, MARGIN, `Level ${column + 1}`,
      [`${level.kept.length} of ${level.candidates} prefixes kept,`,
        `${several(level.items.kept, "item")} of ${level.items.before} in reach`]);
    let top = HEAD;
    const hidden = [];
    level.kept.forEach((prefix, beam) => {
      if (beam >= MOST && !prefix.ranks.length) return hidden.push(prefix);
      here[beam] = add(prefix, top, prefix.ranks.length ? "led" : "kept");
      top += STEP;
    });
    const rest = hidden.reduce((sum, prefix) => sum + prefix.probability, 0);
    const more = hidden.length ? [`and ${several(hidden.length, "beam")} more, ${percent(rest)}`] : [];
    const gone = level.n_dropped.beam + level.n_dropped.history, p = level.probability;
    const texts = [...more];
    if (gone) texts.push(`${gone} dropped, ${percent(p.beam + p.history)}, `
      + several(level.items.beam + level.items.history, "item"));
    if (p.no_item > 0.0005) texts.push(`${percent(p.no_item)} on codes of no item`);
    if (texts.length) {
      head(canvas, left, top + 4, "", texts);
      top += 16 + LINE * texts.length;
    }
    for (const prefix of level.dropped) {
      add(prefix, top, "dropped");
      top += STEP;
    }
    above = here;
    bottom = Math.max(bottom, top);
  });
  const width = 2 * MARGIN + data.levels.length * (WIDTH + GAP) - GAP;
  canvas.style.width = `${width}px`;
  canvas.style.height = `${bottom + MARGIN}px`;
  for (const [key, value] of Object.entries({width, height: bottom + MARGIN})) lines.setAttribute(key, value);
  lines.append(...links.filter(Boolean));
  place.replaceChildren(canvas);
  walk(canvas, nodes, (node) => {
    mark(new Set(way(node)));
    tell(describe(node, data));
  });

  function mark(on) {
    for (const node of nodes) {
      node.button.classList.toggle("on", on.has(node));
      node.link?.classList.toggle("on", on.has(node));
      if (node.link && on.has(node)) lines.append(node.link); // above the others
    }
  }
  return (rank) => {
    const on = nodes.filter((node) => rank !== null && node.prefix.ranks?.includes(rank));
    mark(new Set(on));
    tell(on.length ? on.filter((node) => node.column === on.at(-1).column)
      .map((node) => describe(node, data)).join(" ") : "");
  };
}

function nodeButton(prefix, state) {
  const button = element("button", {type: "button", class: state, tabindex: "-1"});
  const code = element("span", {class: "code"}, prefix.prefix.slice(0, -1).map((one) => `${one}-`).join(""));
  code.append(element("b", {}, prefix.prefix.at(-1)));
  if (state === "led") code.dataset.ranks = prefix.ranks.join(" ");
  const value = prefix.why === "history" ? "history" : percent(prefix.probability);
  const names = prefix.examples.map(titleOf).join("; ");
  button.append(code, element("span", {}, value), element("span", {class: "name"}, names));
  button.setAttribute("aria-label",
    `${prefix.prefix.join("-")}, ${state === "dropped" ? "dropped" : "kept"}, ${percent(prefix.probability)}: ${names}`);
  return button;
}

function head(canvas, left, top, title, texts) {
  const place = element("div", {class: "head"});
  if (title) place.append(element("b", {}, title));
  for (const text of texts) place.append(element("div", {}, text));
  for (const [key, value] of Object.entries({left, top, width: WIDTH})) place.style[key] = `${value}px`;
  canvas.append(place);
}

function link(node, x, y) {
  const from = node.parent.right, middle = (from.x + x) / 2;
  const d = `M${from.x} ${from.y}C${middle} ${from.y} ${middle} ${y} ${x} ${y}`;
  return svg("path", {d, class: node.state});
}

function way(node) {
  return node ? [...way(node.parent), node] : [];
}

function describe(node, data) {
  const {prefix, column} = node, level = data.levels[column];
  let text = `Prefix ${prefix.prefix.join("-")}: log p ${number(prefix.log_prob)}, ${percent(prefix.probability)}; `
    + `its last code alone ${percent(Math.exp(prefix.code_log_prob))}. `
    + `${several(prefix.items, "item")} below it${prefix.items > prefix.examples.length ? ", the most frequent" : ""}: `
    + `${prefix.examples.map(nameOf).join("; ")}. `;
  if (prefix.why === "beam") {
    text += `Dropped: the last beam has log p ${number(level.threshold)}, missed by ${number(prefix.missed_by)}.`;
  } else if (prefix.why === "history") {
    text += "Dropped: all its items are in the history, which is left out.";
  } else if (prefix.children !== null) {
    text += `${several(prefix.children, "beam")} of the next level extend it. `;
  }
  if (prefix.ranks?.length) text += `It leads to rank ${prefix.ranks.join(", ")} of the answer.`;
  return text;
}

// One stop for the Tab key; arrow keys go within a column, to the parent and to the first child.
function walk(canvas, nodes, choose) {
  const of = (button) => nodes.find((node) => node.button === button);
  const enter = (node) => {
    for (const other of nodes) other.button.tabIndex = other === node ? 0 : -1;
    choose(node);
  };
  if (nodes.length) nodes[0].button.tabIndex = 0;
  canvas.addEventListener("focusin", (event) => {
    const node = of(event.target);
    if (node) enter(node);
  });
  canvas.addEventListener("click", (event) => event.target.closest("button")?.focus());
  canvas.addEventListener("keydown", (event) => {
    const node = of(event.target);
    if (!node) return;
    const column = nodes.filter((other) => other.column === node.column), place = column.indexOf(node);
    const next = {ArrowDown: column[place + 1], ArrowUp: column[place - 1],
      ArrowLeft: node.parent, ArrowRight: node.children[0],
      Home: column[0], End: column.at(-1)}[event.key];
    if (!next) return;
    event.preventDefault();
    next.button.focus();
  });
}

export function drawTables(place, data) {
  place.replaceChildren(...data.levels.flatMap((level) => {
    const table = element("table"), {items, probability: p, n_dropped: n} = level;
    const head = element("p", {}, `Level ${level.level}: ${level.candidates} prefixes could follow, `
      + `${level.kept.length} kept (${percent(p.kept)}, ${items.kept} of ${items.before} items). `
      + `Dropped below the last beam: ${n.beam} (${percent(p.beam)}, ${several(items.beam, "item")}). `
      + `With items of the history alone: ${n.history} (${percent(p.history)}). `
      + `On codes that lead to no item: ${percent(p.no_item)}.`);
    const row = (name, cells, kind = "") => {
      const line = element("tr", {class: kind});
      line.append(...cells.map((cell) => element(name, {}, cell)));
      return line;
    };
    table.append(row("th", ["prefix", "log p", "p", "p of the code", "items", "next", "answer", "missed by", "most frequent"]));
    for (const x of [...level.kept, ...level.dropped]) {
      const missed = x.why === "history" ? "history" : x.missed_by === undefined ? "" : number(x.missed_by ?? 0);
      table.append(row("td", [x.prefix.join("-"), number(x.log_prob), percent(x.probability),
        percent(Math.exp(x.code_log_prob)), x.items, x.children ?? "", x.ranks?.join(" ") ?? "", missed,
        titleOf(x.examples[0])], x.why ? "dropped" : ""));
    }
    const wide = element("div", {class: "wide", tabindex: "0", role: "region",
      "aria-label": `Table of level ${level.level}`});
    wide.append(table);
    return [head, wide];
  }));
}
