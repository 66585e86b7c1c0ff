// A view of one tree of SIDs: where one is, a treemap of the next codes, and the items below.

/** An element with attributes, event handlers and children; text is never markup. */
function el(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given))
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  made.append(...children.flat().filter(child => child !== null && child !== undefined));
  return made;
}

function letter(level) {
  let name = "";
  for (level += 1; level; level = Math.floor((level - 1) / 26))
    name = String.fromCharCode(97 + (level - 1) % 26) + name;
  return name;
}

const written = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const asText = text => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const short = (text, most) => text.length > most ? `${text.slice(0, most - 1)}\u2026` : text;

/** Words on lines for a figure, where `<br>` alone is markup. */
function lines(text, width, most) {
  const found = [""];
  for (const word of text.split(" "))
    if (found.at(-1) && found.at(-1).length + word.length >= width) found.push(word);
    else found.push(`${found.pop()} ${word}`.trim());
  const shown = found.slice(0, most);
  if (found.length > most) shown.push(`${shown.pop()}\u2026`);
  return shown.map(line => asText(short(line, width + 8))).join("<br>");
}

/** A link to an item, which is shown without leaving `view`, where one is. */
const itemLink = (app, item, { id, title }, most = Infinity, view = null) => el("a", { href: `#item=${encodeURIComponent(id)}`,
  "data-id": id, dir: "auto", onclick: event => { event.preventDefault(); app.choose(item, view); } }, short(title || id, most));

const MOST_CODES = 256, PAGE = 25;
const COLOURS = { likeness: "content similarity", use: "interactions an item", items: "items" };

class View {
  /** A view for `app`, which tells what is chosen; `tree` may be exchanged. */
  constructor(app, tree) {
    Object.assign(this, { app, tree, prefix: [], first: 0, page: 0 });
    const { catalogue } = app, pick = (title, entries, onchange) => el("label", {}, `${title} `,
      el("select", { onchange }, entries.map(([value, text]) => el("option", { value }, text))));
    this.trees = pick("SIDs of", catalogue.trees.map((one, i) => [i, one.name]), event => {
      this.take(catalogue.trees[event.target.value]);
      app.item >= 0 ? this.reveal(app.item) : this.show([]);
      app.changed();
    });
    this.size = pick("Size", [["items", "items"], ["use", "interactions"]], () => this.map());
    this.colour = pick("Colour", [], () => this.map());
    this.sort = pick("Items by", [["sid", "SID"], ["use", "interactions"]], () => { this.page = 0; this.list(); });
    this.trees.hidden = catalogue.trees.length < 2;
    this.size.hidden = this.sort.hidden = !catalogue.counts;
    this.path = el("nav", { class: "path", "aria-label": "prefix" });
    this.plot = el("div", { class: "plot treemap" });
    this.codes = el("div", { class: "codes" });
    this.items = el("div");
    this.top = el("div", { class: "view" }, el("div", { class: "bar" }, this.trees, this.size, this.colour),
      this.path, this.plot, this.grey = el("p", { class: "note" }, "Dark grey: a single item."), this.codes);
    this.bottom = el("div", { class: "view" }, this.items);
    this.take(tree);
  }

  /** Show a tree, with what its treemap can be coloured by. */
  take(tree) {
    this.tree = tree;
    const known = Object.entries(COLOURS).filter(([kind]) =>
      kind === "items" || (kind === "use" ? this.app.catalogue.counts : this.tree.cohesion));
    const select = this.colour.querySelector("select");
    select.replaceChildren(...known.map(([value, text]) => el("option", { value }, text)));
    this.trees.querySelector("select").value = this.tree.number;
  }

  value(label) { return label.querySelector("select").value; }

  /** Go to a prefix; one without items becomes the longest that has some. */
  show(prefix, first = 0) {
    prefix = prefix.slice(0, this.tree.depth);
    while (!this.tree.range(prefix)) prefix = prefix.slice(0, -1);
    Object.assign(this, { prefix, first, page: 0 });
    return this.draw();
  }

  /** Go to where an item stands beside others. */
  reveal(item) {
    const sid = this.tree.sid(item);
    let depth = this.tree.depth - 1;
    const alone = prefix => { const [low, high] = this.tree.range(prefix); return high - low < 2; };
    while (depth && alone(sid.slice(0, depth))) depth--;
    const nodes = this.tree.children(sid.slice(0, depth));
    const at = nodes.findIndex(node => node.code === sid[depth]);
    const first = Math.floor(at / MOST_CODES) * MOST_CODES;
    return this.show(sid.slice(0, depth), first).then(() => this.turnTo(item));
  }

  /** Turn the list to the page of an item. */
  turnTo(item) {
    const at = this.listed().indexOf(item);
    if (at >= 0 && Math.floor(at / PAGE) !== this.page) { this.page = Math.floor(at / PAGE); return this.list(); }
  }

  draw() {
    this.breadcrumb();
    return Promise.all([this.map(), this.list()]);
  }

  breadcrumb() {
    const go = depth => () => { this.show(this.prefix.slice(0, depth)); this.app.changed(); };
    const [low, high] = this.tree.range(this.prefix), sums = this.tree.sums;
    const parts = [el("button", { onclick: go(0), "aria-current": !this.prefix.length && "true" }, "all")];
    this.prefix.forEach((code, level) => parts.push(" \u203a ", el("button", { onclick: go(level + 1),
      "aria-current": level + 1 === this.prefix.length && "true" }, `${letter(level)} ${code}`)));
    const like = this.likeness(), amount = this.app.catalogue.counts ? `, ${written(sums[high] - sums[low], "interaction")}` : "";
    this.path.replaceChildren(...parts, el("span", { class: "note" }, ` ${written(high - low, "item")}${amount}`
      + (Number.isNaN(like) ? "" : `, content similarity ${like.toFixed(3)}`)));
  }

  likeness() {
    if (!this.prefix.length) return NaN;
    const node = this.tree.children(this.prefix.slice(0, -1)).find(one => one.code === this.prefix.at(-1));
    return node.likeness;
  }

  /** The treemap and the buttons below it; titles of the most used items come when they are unpacked. */
  async map() {
    const nodes = this.tree.children(this.prefix), shown = nodes.slice(this.first, this.first + MOST_CODES);
    this.buttons(nodes, shown);
    this.plot.hidden = !shown.length;
    if (!shown.length) return;
    await draw(this.plot, this.figure(nodes, shown, null));
    this.listen();
    const examples = shown.map(node => this.example(node)), prefix = this.prefix;
    const texts = await this.app.catalogue.texts(examples);
    if (prefix === this.prefix && this.plot.isConnected) await draw(this.plot, this.figure(nodes, shown, texts));
  }

  listen() {
    if (this.listening) return;
    this.listening = true;
    this.plot.on("plotly_treemapclick", event => {
      const id = event.points[0].id;
      if (id !== "root") setTimeout(() => this.enter(Number(id)));
      return false;
    });
  }

  /** Go on to a code; a SID of one item is that item. */
  enter(code) {
    const prefix = [...this.prefix, code], [low, high] = this.tree.range(prefix);
    if (high - low === 1) return this.app.choose(this.tree.order[low], this);
    this.show(prefix);
    this.app.changed();
  }

  /** The item of a prefix that is used most. */
  example(node) {
    const { counts } = this.app.catalogue;
    let best = this.tree.order[node.low];
    for (let place = node.low; counts && place < node.high; place++)
      if (counts[this.tree.order[place]] > counts[best]) best = this.tree.order[place];
    return best;
  }

  figure(nodes, shown, texts) {
    const { sums } = this.tree, level = letter(this.prefix.length), chosen = this.chosenCode();
    const use = node => sums[node.high] - sums[node.low], count = node => node.high - node.low;
    const size = this.value(this.size) === "use" ? node => Math.max(use(node), 0.2) : count;
    const asked = this.value(this.colour), alone = shown.every(node => Number.isNaN(node.likeness));
    const kind = asked === "likeness" && alone ? (this.app.catalogue.counts ? "use" : "items") : asked, logs = value => value > 0 ? Math.log10(value) : null;
    const colours = shown.map(node => kind === "likeness" ? (Number.isNaN(node.likeness) ? null : node.likeness)
      : logs(kind === "use" ? use(node) / count(node) : count(node)));
    const ticks = kind === "likeness" ? {} : { tickvals: [0, 1, 2, 3, 4, 5], ticktext: [1, 10, 100, "1k", "10k", "100k"] };
    const known = colours.filter(value => value !== null);
    this.grey.hidden = known.length === colours.length;
    const [low, high] = kind === "likeness" ? this.app.catalogue.likenessEnds(this.prefix.length + 1)
      : [0, Math.max(0.5, ...known)];
    const about = node => `${level} ${node.code}<br>${written(count(node), "item")}`
      + (this.app.catalogue.counts ? `<br>${written(use(node), "interaction")}` : "")
      + (Number.isNaN(node.likeness) ? "" : `<br>content similarity ${node.likeness.toFixed(3)}`);
    const whole = shown.reduce((sum, node) => sum + size(node), 0), pixels = this.plot.clientWidth * this.plot.clientHeight,
      area = node => pixels * size(node) / whole;
    const title = place => texts?.[place].title || texts?.[place].id || "";
    const trace = {
      type: "treemap", branchvalues: "total", sort: true, pathbar: { visible: false }, tiling: { pad: 1 },
      ids: ["root", ...shown.map(node => String(node.code))], parents: ["", ...shown.map(() => "root")],
      labels: ["", ...shown.map(node => area(node) > 500 ? `${level} ${node.code}` : "")], textinfo: "label+text", textposition: "top left",
      values: [whole, ...shown.map(size)],
      text: ["", ...shown.map((node, place) => area(node) > 3000 ? lines(title(place), 16, 3) : "")],
      customdata: ["", ...shown.map((node, place) => `${about(node)}<br><i>${lines(title(place), 44, 3)}</i>`)],
      hovertemplate: "%{customdata}<extra></extra>",
      marker: {
        colors: [null, ...colours], colorscale: "Cividis", cmin: low, cmax: high, showscale: known.length > 0, pad: { t: 0, l: 0, r: 0, b: 0 },
        colorbar: { thickness: 10, title: { text: COLOURS[kind], side: "right" }, ...ticks },
        line: { width: [0, ...shown.map(node => node.code === chosen ? 3 : 1)],
          color: ["#888", ...shown.map(node => node.code === chosen ? "#D55E00" : "#888")] },
      },
    };
    return { data: [trace], layout: { margin: { l: 0, r: 0, t: 4, b: 4 } } };
  }

  chosenCode() {
    const { item } = this.app, level = this.prefix.length;
    if (item < 0 || level >= this.tree.depth) return -1;
    const sid = this.tree.sid(item);
    return this.prefix.every((code, i) => code === sid[i]) ? sid[level] : -1;
  }

  /** The codes as buttons, for the keyboard and for codes that are many. */
  buttons(nodes, shown) {
    const chosen = this.chosenCode(), level = letter(this.prefix.length);
    const turn = first => () => { this.show(this.prefix, first); };
    const more = [];
    if (this.first) more.push(el("button", { onclick: turn(Math.max(0, this.first - MOST_CODES)) }, "\u2039 codes before"));
    if (nodes.length > this.first + MOST_CODES)
      more.push(el("button", { onclick: turn(this.first + MOST_CODES) }, `${written(nodes.length - this.first - MOST_CODES, "further code")} \u203a`));
    this.codes.replaceChildren(...shown.map(node => el("button", { "data-code": node.code, "aria-current": node.code === chosen && "true",
      onclick: () => this.enter(node.code) }, `${level} ${node.code}`, el("small", {}, ` ${(node.high - node.low).toLocaleString("en")}`))), ...more);
  }

  /** Items of the prefix in the order of the list. */
  listed() {
    const [low, high] = this.tree.range(this.prefix), items = Array.from(this.tree.order.subarray(low, high));
    const { counts } = this.app.catalogue;
    return counts && this.value(this.sort) === "use" ? items.sort((a, b) => counts[b] - counts[a]) : items;
  }

  async list() {
    const items = this.listed(), pages = Math.ceil(items.length / PAGE), { catalogue, item: chosen } = this.app;
    const shown = items.slice(this.page * PAGE, (this.page + 1) * PAGE), asked = this.asked = {};
    const texts = await catalogue.texts(shown);
    if (asked !== this.asked) return; // another prefix by now
    const heads = ["item", "id", "SID", ...(catalogue.counts ? ["interactions"] : []), "on its SID"];
    const rows = shown.map((item, row) => {
      const sharing = this.tree.sharing(item);
      return el("tr", { "aria-current": item === chosen && "true" },
        el("th", { scope: "row" }, itemLink(this.app, item, texts[row], 120, this)),
        el("td", {}, texts[row].id), el("td", {}, this.tree.sid(item).join(", ")), catalogue.counts && el("td", {}, String(catalogue.counts[item])),
        el("td", {}, sharing > 1 ? el("span", { class: "collision" }, written(sharing, "item")) : "alone"));
    });
    const turn = by => () => { this.page += by; this.list(); };
    const paging = el("div", { class: "bar" }, el("b", {}, written(items.length, "item")), this.sort, pages > 1 ? [
      el("button", { disabled: this.page === 0, onclick: turn(-1) }, "\u2039"), `page ${this.page + 1} of ${pages}`,
      el("button", { disabled: this.page + 1 === pages, onclick: turn(1) }, "\u203a")] : []);
    this.items.replaceChildren(paging, el("div", { class: "wide" }, el("table", { class: "items" },
      el("thead", {}, el("tr", {}, heads.map(head => el("th", { scope: "col" }, head)))), el("tbody", {}, rows))));
  }
}
