// What is known of the item that was chosen: its SIDs, who shares them, its neighbours, SIDs of before and after.

const MATES = 6, KINDS = { content: "Nearest by content", histories: "Most often next to it in training histories" };

/** The panel of an item; `app` tells what is chosen and which trees are shown. */
class ItemPanel {
  constructor(app) {
    this.app = app;
    this.place = el("aside", { class: "panel", "aria-live": "polite" });
  }

  trees() { return [...new Set(this.app.views.map(view => view.tree))]; }

  async show(item) {
    const { catalogue } = this.app, asked = this.asked = {};
    const trees = this.trees(), [text] = await catalogue.texts([item]);
    const parts = await Promise.all([...trees.map(tree => this.ofTree(tree, item)), this.neighbours(item)]);
    if (asked !== this.asked) return;
    const amount = catalogue.counts ? `, ${written(catalogue.counts[item], "training interaction")}` : "";
    this.place.replaceChildren(el("h3", {}, el("bdi", {}, text.title || text.id)), el("p", { class: "note" }, `id ${text.id}${amount}`
      + (this.app.item < 0 ? "; an example, choose another in the list, the tree or the search" : "")),
      el("div", { class: "parts" }, parts.flat()));
    this.place.dataset.item = text.id;
  }

  /** A link to an item, with what is said of it. */
  link(item, text, ...about) {
    return el("li", {}, itemLink(this.app, item, text, 90), ...about.map(words => el("small", {}, ` ${words}`)));
  }

  /** SID, mates by the number of shared codes, and the SIDs of before and after, of one tokenizer. */
  async ofTree(tree, item) {
    const sid = tree.sid(item), mates = [];
    let inner = null;
    for (let depth = tree.depth; depth > 0; depth--) {
      const [low, high] = tree.range(sid.slice(0, depth)), [from, to] = inner ?? [tree.place[item], tree.place[item] + 1];
      const items = [...tree.order.subarray(low, from), ...tree.order.subarray(to, high)];
      inner = [low, high];
      if (!items.length) continue;
      const best = this.mostUsed(items), texts = await this.app.catalogue.texts(best);
      const rest = items.length - best.length;
      mates.push(el("h4", {}, depth === tree.depth ? `${written(items.length, "item")} on the same SID`
        : `${written(items.length, "item")} with the first ${depth === 1 ? "code" : `${depth} codes`}${depth < tree.depth - 1 ? ", no more" : ""}`),
      el("ul", {}, best.map((mate, i) => this.link(mate, texts[i], tree.sid(mate).join(", "))),
        rest ? el("li", { class: "note" }, `and ${rest.toLocaleString("en")} more`) : null));
    }
    return el("section", {}, el("h4", {}, `SID of ${tree.name}`), this.path(tree, sid), await this.history(tree, item, sid), ...mates);
  }

  mostUsed(items) {
    const { counts } = this.app.catalogue;
    if (items.length <= MATES || !counts) return items.slice(0, MATES);
    const best = [];
    for (const item of items) {
      if (best.length === MATES && counts[item] <= counts[best.at(-1)]) continue;
      best.push(item);
      best.sort((a, b) => counts[b] - counts[a]);
      best.length = Math.min(best.length, MATES);
    }
    return best;
  }

  /** The codes of a SID as buttons, with how many items are below each. */
  path(tree, sid) {
    const buttons = sid.map((code, level) => {
      const prefix = sid.slice(0, level + 1), [low, high] = tree.range(prefix);
      return el("button", { onclick: () => this.app.goTo(tree, prefix) }, `${letter(level)} ${code}`,
        el("small", {}, ` ${(high - low).toLocaleString("en")}`));
    });
    const note = tree.content < tree.depth ? el("p", { class: "note" },
      `What follows ${letter(tree.content - 1)} only numbers the items that share the codes before.`) : null;
    return [el("div", { class: "codes path" }, buttons), note].filter(Boolean);
  }

  /** SIDs of before and after; codes that are others than the time before are marked. */
  async history(tree, item, now) {
    if (!tree.versions.length) return null;
    let before = null;
    const rows = (await tree.history(item)).map(([name, sid]) => {
      const last = before;
      before = sid ?? before;
      const changed = sid && last ? sid.findIndex((code, level) => code !== last[level]) : -1;
      const cells = sid ? sid.flatMap((code, level) => [level ? ", " : "", last && code !== last[level]
        ? el("b", { class: "changed" }, String(code)) : String(code)]) : ["-"];
      const what = !sid ? "not there yet" : !last ? "" : changed < 0 ? "as before" : `changed from ${letter(changed)} on`;
      return el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, cells), el("td", {}, what));
    });
    return el("div", { class: "wide" }, el("table", { class: "history" }, el("caption", { class: "note" },
      `SIDs in time; the table is of ${now.join(", ")}`), el("tbody", {}, rows)));
  }

  /** Neighbours by content and in histories, each with how many codes it shares in each tree. */
  async neighbours(item) {
    const { catalogue } = this.app, trees = this.trees();
    return Promise.all((await catalogue.neighbours(item)).map(async ({ kind, found }) => {
      const texts = await catalogue.texts(found.map(near => near.item));
      const rows = found.map((near, i) => this.link(near.item, texts[i],
        kind === "content" ? near.strength.toFixed(3) : written(near.strength, "time"),
        ...trees.map(tree => this.sharedText(tree, tree.shared(item, near.item)))));
      for (const [i, row] of rows.entries())
        if (trees.some(tree => tree.shared(item, found[i].item))) row.classList.add("shares");
      return el("section", { "data-kind": kind }, el("h4", {}, KINDS[kind]),
        el("p", { class: "note" }, "with the codes that it shares from the first on"
          + (kind === "content" && !catalogue.about.exact ? "; looked for in the clusters next to it" : "")),
        rows.length ? el("ol", {}, rows) : el("p", { class: "note" }, "None."));
    }));
  }

  sharedText(tree, depth) {
    const name = this.trees().length > 1 ? `${tree.name} ` : "";
    return `\u00b7 ${name}${depth ? `${depth} of ${tree.depth} codes` : "no code"}`;
  }
}
