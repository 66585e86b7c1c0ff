// The data of a walk through SIDs: tables as trees of prefixes, items by blocks that are unpacked when asked for.

/** Reads arrays of integers that lie behind each other, bytes of equal weight together. */
class Numbers {
  constructor(bytes, parts) { Object.assign(this, { bytes, parts, part: 0, at: 0 }); }

  next() {
    const [count, width] = this.parts[this.part++], values = new Int32Array(count);
    for (let place = 0; place < width; place++, this.at += count)
      for (let i = 0; i < count; i++) values[i] |= this.bytes[this.at + i] << (8 * place);
    return values;
  }
}

/** The first place from `low` to `high` of which `holds` is true; it is false before and true after. */
function firstWhere(low, high, holds) {
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle; else low = middle + 1;
  }
  return low;
}

/** The SIDs of one tokenizer: items in the order of their SIDs, so that a prefix is a range of places. */
class Tree {
  constructor(about, number, n, numbers, whole) {
    Object.assign(this, about, { number, n, whole, depth: about.sizes.length });
    this.codes = about.sizes.map(() => numbers.next());
    this.order = this.sorted();
    this.place = new Int32Array(n);
    for (let i = 0; i < n; i++) this.place[this.order[i]] = i;
    this.starts = this.prefixStarts();
    this.likeness = this.starts.map((starts, depth) =>
      depth && depth <= about.cohesion ? this.spread(starts, numbers.next()) : null);
  }

  /** Items by their SIDs, by one counting sort a level, from the last to the first. */
  sorted() {
    let order = Int32Array.from({ length: this.n }, (_, item) => item);
    for (let level = this.depth - 1; level >= 0; level--) {
      const codes = this.codes[level], next = new Int32Array(this.sizes[level] + 1), after = new Int32Array(this.n);
      for (const code of codes) next[code + 1]++;
      for (let code = 0; code < this.sizes[level]; code++) next[code + 1] += next[code];
      for (const item of order) after[next[codes[item]]++] = item;
      order = after;
    }
    return order;
  }

  /** Where the prefixes of each length begin, and `n` behind the last. */
  prefixStarts() {
    const begins = new Uint8Array(this.n), all = [[0, this.n]];
    begins[0] = 1;
    for (const codes of this.codes) {
      const starts = [];
      for (let i = 0; i < this.n; i++) {
        if (!begins[i] && codes[this.order[i]] !== codes[this.order[i - 1]]) begins[i] = 1;
        if (begins[i]) starts.push(i);
      }
      all.push([...starts, this.n]);
    }
    return all;
  }

  /** Values of the prefixes of two items or more, by prefix; NaN for the others. */
  spread(starts, values) {
    let next = 0;
    const spread = new Float32Array(starts.length - 1);
    for (let i = 0; i < spread.length; i++)
      spread[i] = starts[i + 1] - starts[i] > 1 ? values[next++] / this.whole - 1 : NaN;
    return spread;
  }

  sid(item) { return this.codes.map(codes => codes[item]); }

  /** How many codes two items share from the first on. */
  shared(a, b) {
    let depth = 0;
    while (depth < this.depth && this.codes[depth][a] === this.codes[depth][b]) depth++;
    return depth;
  }

  /** Places of the items of a prefix, `[low, high)`; null where it has none. */
  range(prefix) {
    let [low, high] = [0, this.n];
    prefix.forEach((code, level) => {
      const at = place => this.codes[level][this.order[place]], end = high;
      low = firstWhere(low, end, place => at(place) >= code);
      high = firstWhere(low, end, place => at(place) > code);
    });
    return low < high ? [low, high] : null;
  }

  /** The prefixes one code longer: their codes, places, and likeness where it is known. */
  children(prefix) {
    const depth = prefix.length + 1, range = this.range(prefix);
    if (depth > this.depth || !range) return [];
    const starts = this.starts[depth], found = [];
    for (let node = firstWhere(0, starts.length, i => starts[i] >= range[0]); starts[node] < range[1]; node++)
      found.push({ code: this.codes[depth - 1][this.order[starts[node]]], low: starts[node], high: starts[node + 1],
        likeness: this.likeness[depth]?.[node] ?? NaN });
    return found;
  }

  /** How many items share the codes of an item before a suffix. */
  sharing(item) {
    const starts = this.starts[this.content], place = this.place[item];
    const node = firstWhere(0, starts.length, i => starts[i] > place);
    return starts[node] - starts[node - 1];
  }

  /** The largest groups of items on one SID before a suffix, as prefixes with their sizes. */
  collisions(most) {
    const starts = this.starts[this.content], found = [];
    for (let i = 0; i + 1 < starts.length; i++)
      if (starts[i + 1] - starts[i] > 1) found.push([starts[i], starts[i + 1] - starts[i]]);
    found.sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    return { count: found.length, largest: found.slice(0, most).map(([low, size]) =>
      ({ prefix: this.sid(this.order[low]).slice(0, this.content), size, item: this.order[low] })) };
  }

  /** Earlier and later SIDs of an item: name and codes, null where it had none. */
  async history(item) {
    this.kept ??= unpackedBytes(`walk-versions-${this.number}`).then(bytes => {
      const numbers = new Numbers(bytes, this.parts);
      return this.versions.map(([name, levels]) => [name, Array.from({ length: levels }, () => numbers.next())]);
    });
    return (await this.kept).map(([name, levels]) =>
      [name, levels[0][item] ? levels.map(codes => codes[item] - 1) : null]);
  }
}

/** Items, what is known of each, and the trees of all tokenizers. */
class Catalogue {
  constructor(about, bytes) {
    Object.assign(this, { about, n: about.n, blocks: new Map() });
    const numbers = new Numbers(bytes, about.parts);
    this.trees = about.tables.map((table, number) => new Tree(table, number, about.n, numbers, about.whole));
    this.counts = about.counts ? numbers.next() : null;
    for (const tree of this.trees) tree.sums = this.sums(tree);
  }

  /** Training interactions of the items before each place of a tree. */
  sums(tree) {
    const sums = new Float64Array(this.n + 1);
    for (let i = 0; i < this.n; i++) sums[i + 1] = sums[i] + (this.counts?.[tree.order[i]] ?? 0);
    return sums;
  }

  /** The least and the largest likeness of prefixes of a length in all trees, the ends of one scale of colours. */
  likenessEnds(depth) {
    this.ends ??= [];
    if (!this.ends[depth]) {
      let [low, high] = [1, 0];
      for (const tree of this.trees)
        for (const value of tree.likeness[depth] ?? [])
          if (!Number.isNaN(value)) [low, high] = [Math.min(low, value), Math.max(high, value)];
      this.ends[depth] = [low, high];
    }
    return this.ends[depth];
  }

  /** The item that is used most; the first where that is not known. */
  mostUsed() { return this.counts ? this.counts.reduce((best, count, item) => count > this.counts[best] ? item : best, 0) : 0; }

  /** What a block holds, unpacked once. */
  block(kind, number) {
    const name = `walk-${kind}-${number}`;
    if (!this.blocks.has(name)) this.blocks.set(name, kind === "texts" ? unpacked(name).then(JSON.parse)
      : unpackedBytes(name).then(bytes => {
        const numbers = new Numbers(bytes, this.about.neighbours[number]);
        return this.about.near.map(kind => ({ kind, items: numbers.next(), strengths: numbers.next() }));
      }));
    return this.blocks.get(name);
  }

  /** `{id, title}` of items, in their order. */
  async texts(items) {
    const size = this.about.block, blocks = new Map();
    for (const item of items) blocks.set(Math.floor(item / size), null);
    await Promise.all([...blocks.keys()].map(async number => blocks.set(number, await this.block("texts", number))));
    return Array.from(items, item => {
      const [ids, titles] = blocks.get(Math.floor(item / size));
      return { id: ids[item % size], title: titles[item % size] };
    });
  }

  /** Neighbours of an item: `{kind, found: [{item, strength}]}`, the nearest first. */
  async neighbours(item) {
    const { block: size, whole } = this.about, at = item % size, number = Math.floor(item / size);
    const inBlock = Math.min(size, this.n - number * size);
    return (await this.block("near", number)).map(({ kind, items, strengths }) => {
      const k = items.length / inBlock, found = [];
      for (let i = at * k; i < (at + 1) * k; i++)
        if (items[i]) found.push({ item: items[i] - 1,
          strength: kind === "content" ? strengths[i] / whole - 1 : strengths[i] });
      return { kind, found };
    });
  }

  /** All names and titles, and the same as one looks for them; made once. */
  all() {
    return this.everything ??= this.texts(this.trees[0].everyItem ??= Int32Array.from({ length: this.n }, (_, i) => i))
      .then(texts => {
        this.byId = new Map(texts.map((text, item) => [text.id, item]));
        return texts.map(text => ({ ...text, low: `${text.id}\n${text.title}`.toLowerCase() }));
      });
  }

  async itemOf(id) { await this.all(); return this.byId.get(id) ?? -1; }

  /** Items whose name or title holds the words, that of the very name first. */
  async found(words, most) {
    const wanted = words.trim().toLowerCase(), hits = [], parts = wanted.split(/\s+/);
    if (!wanted) return hits;
    const all = await this.all(), own = this.byId.get(words.trim()) ?? -1;
    if (own >= 0) hits.push(own);
    for (let item = 0; item < this.n && hits.length < most; item++)
      if (item !== own && parts.every(part => all[item].low.includes(part))) hits.push(item);
    return hits;
  }

  /** `item_id,sid_0,...` of all items of a tree, in the order of their SIDs. */
  async csv(tree) {
    const all = await this.all(), cell = text => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    const lines = [["item_id", ...tree.sizes.map((_, level) => `sid_${level}`)].join(",")];
    for (const item of tree.order) lines.push(`${cell(all[item].id)},${tree.sid(item).join(",")}`);
    return lines.join("\n") + "\n";
  }
}
