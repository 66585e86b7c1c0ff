// The walk through SIDs: views, search, the chosen item, and the address that leads back to all of it.

class Walk {
  constructor(catalogue) {
    Object.assign(this, { catalogue, item: -1 });
    this.views = catalogue.trees.slice(0, 2).map(tree => new View(this, tree));
    this.panel = new ItemPanel(this);
  }

  /** Put everything into its place. */
  build(place) {
    this.search = el("input", { type: "search", placeholder: "title or id of an item", "aria-label": "Find an item",
      oninput: () => this.find(), onfocus: () => this.catalogue.all(),
      onkeydown: event => { if (event.key === "Enter") this.hits.querySelector("a")?.click(); } });
    this.hits = el("ul", { class: "hits", "aria-label": "items found" });
    const saves = this.catalogue.trees.map(tree => el("button", { class: "csv", onclick: () => this.save(tree) },
      `CSV of ${tree.name}`));
    place.append(el("div", { class: "bar" }, el("div", { class: "search" }, this.search, this.hits), saves),
      el("div", { class: `walk of${this.views.length}` }, this.views.map(view => view.top), this.panel.place,
        this.views.map(view => view.bottom)));
    this.collisions();
  }

  async find() {
    const words = this.search.value, hits = await this.catalogue.found(words, 12), texts = await this.catalogue.texts(hits);
    if (words !== this.search.value) return;
    const tree = this.views[0].tree;
    this.hits.replaceChildren(...hits.map((item, i) => el("li", { onclick: () => this.hits.replaceChildren() },
      itemLink(this, item, texts[i]), el("small", {}, ` ${texts[i].id} \u00b7 ${tree.sid(item).join(", ")}`))),
    ...(words.trim() && !hits.length ? [el("li", { class: "note" }, "No item has these words.")] : []));
  }

  /** Show an item: its panel, and where it stands in each tree but in that of `view`, where one is already. */
  async choose(item, view = null) {
    this.item = item;
    await Promise.all([this.panel.show(item), ...this.views.map(one => one === view ? one.draw() : one.reveal(item))]);
    this.changed();
  }

  /** Show a prefix in the view of a tree; where it has none, in the first. */
  goTo(tree, prefix) {
    const view = this.views.find(one => one.tree === tree) ?? this.views[0];
    view.take(tree);
    view.show(prefix);
    this.changed();
  }

  /** Write the address of what is shown. */
  async changed() {
    const parts = this.views.map((view, i) => view.prefix.length && `prefix${i ? i + 1 : ""}=${view.prefix.join(",")}`);
    if (this.item >= 0) parts.unshift(`item=${encodeURIComponent((await this.catalogue.texts([this.item]))[0].id)}`);
    this.address = parts.filter(Boolean).join("&");
    history.replaceState(null, "", `#${this.address}`);
    if (this.item >= 0 && this.panel.shownTrees !== this.treesShown()) this.panel.show(this.item);
    this.panel.shownTrees = this.treesShown();
  }

  treesShown() { return this.views.map(view => view.tree.number).join(); }

  /** Go where the address says: `#item=...`, `#prefix=3,17`, `#prefix2=...` of the second tree. */
  async follow() {
    const given = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
    const codes = name => given.get(name)?.split(",").map(Number).filter(Number.isInteger);
    const item = given.has("item") ? await this.catalogue.itemOf(given.get("item")) : -1;
    if (item >= 0) this.item = item;
    await Promise.all(this.views.map((view, i) => {
      const prefix = codes(i ? `prefix${i + 1}` : "prefix");
      return prefix ? view.show(prefix) : item >= 0 ? view.reveal(item) : view.show([]);
    }));
    await this.panel.show(item >= 0 ? item : this.catalogue.mostUsed());
  }

  async save(tree) {
    const link = el("a", { download: `sids-${tree.name}.csv`,
      href: URL.createObjectURL(new Blob([await this.catalogue.csv(tree)], { type: "text/csv" })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  /** The largest groups of items on one SID, in the section of collisions. */
  async collisions() {
    const place = document.getElementById("walk-collisions");
    for (const tree of this.catalogue.trees) {
      const { count, largest } = tree.collisions(20), texts = await this.catalogue.texts(largest.map(one => one.item));
      const suffix = tree.content < tree.depth ? ` (by the first ${tree.content} codes)` : "";
      place.append(el("h3", {}, `${tree.name}: ${written(count, "SID")} of several items${suffix}`), el("ol", { class: "groups" },
        largest.map(({ prefix, size }, i) => el("li", {}, el("a", { href: `#prefix=${prefix.join(",")}`, onclick: event => {
          event.preventDefault();
          this.goTo(tree, prefix);
          document.getElementById("walk").scrollIntoView();
        } }, `${written(size, "item")} on ${prefix.join(", ")}`), el("small", {}, ` such as ${short(texts[i].title || texts[i].id, 80)}`)))));
    }
  }
}

async function startWalk() {
  const about = JSON.parse(document.getElementById("walk-about").textContent);
  const walk = new Walk(new Catalogue(about, await unpackedBytes("walk-core")));
  walk.build(document.getElementById("walk"));
  await walk.follow();
  addEventListener("hashchange", () => {
    const hash = location.hash.slice(1);
    if (hash.includes("=") && hash !== walk.address) walk.follow();
  });
  document.documentElement.dataset.walk = "drawn";
  globalThis.walk = walk;
}
startWalk();
