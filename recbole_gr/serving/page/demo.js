// The page of `recbole-gr serve-demo`: what is asked, and the answer. What comes from the data goes
// into the page as text, never as HTML.
import {drawTree, drawTables, element, nameOf, number, percent, several} from "/tree.js";

const at = (id) => document.getElementById(id);
const chosen = {user: null, history: [], why: []};
let about, tree, latest = 0;

async function fetched(path, body) {
  const asked = body === undefined ? {} : {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body),
  };
  const response = await fetch(path, asked);
  const data = await response.json();
  if (!response.ok) throw new Error(data.error);
  return data;
}

function say(text, wrong = false) {
  at("message").textContent = text;
  at("message").classList.toggle("wrong", wrong);
}

// A text field with a list of what fits it: arrow keys and Enter, or a click, pick one.
function picker(input, find, show, pick) {
  const list = element("ul", {role: "listbox", id: `${input.id}-list`});
  list.hidden = true;
  input.after(list);
  const attributes = {role: "combobox", "aria-expanded": "false", "aria-autocomplete": "list"};
  for (const [name, value] of Object.entries(attributes)) input.setAttribute(name, value);
  input.setAttribute("aria-controls", list.id);
  let found = [], active = -1, calls = 0;

  function close() {
    calls++; // what is still looked for comes too late
    list.hidden = true;
    active = -1;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }
  function activate(place) {
    active = place;
    [...list.children].forEach((line, n) => line.setAttribute("aria-selected", n === active));
    if (active < 0) return;
    input.setAttribute("aria-activedescendant", list.children[active].id);
    list.children[active].scrollIntoView({block: "nearest"});
  }
  async function open() {
    const call = ++calls;
    const lines = await find(input.value).catch((error) => (say(error.message, true), []));
    if (call !== calls || document.activeElement !== input) return;
    found = lines;
    list.replaceChildren(...found.map((one, n) => {
      const line = element("li", {role: "option", id: `${list.id}-${n}`});
      line.append(...show(one).map((text) => element("span", {}, text)));
      line.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        take(n);
      });
      return line;
    }));
    list.hidden = !found.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    activate(found.length && input.value ? 0 : -1);
  }
  function take(place) {
    close();
    pick(found[place]);
  }
  input.addEventListener("input", open);
  input.addEventListener("focus", open);
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (list.hidden) return;
    const step = {ArrowDown: 1, ArrowUp: -1}[event.key];
    if (step) {
      event.preventDefault();
      activate((active + step + found.length) % found.length);
    } else if (event.key === "Enter" && active >= 0) {
      event.preventDefault();
      take(active);
    }
  });
}

function chips(place, items, change) {
  place.replaceChildren(...items.map((item, n) => {
    const line = element("li", {}, nameOf(item));
    const gone = element("button", {type: "button", "aria-label": `Remove ${nameOf(item)}`}, "\u00d7");
    gone.addEventListener("click", () => {
      items.splice(n, 1);
      change();
    });
    line.append(gone);
    return line;
  }));
}

const kind = () => document.querySelector("input[name=kind]:checked").value;

function showForm() {
  at("user-part").hidden = kind() !== "user";
  at("history-part").hidden = kind() !== "history";
  at("history-hint").hidden = !chosen.history.length;
  at("own").hidden = !(about.takes_histories && tree?.history?.length);
  const changed = () => {
    showForm();
    recommend();
  };
  chips(at("taken"), chosen.history, changed);
  chips(at("asked"), chosen.why, changed);
}

function question() {
  const asked = {k: at("k").valueAsNumber, exclude_history: at("exclude").checked};
  if (about.explains) {
    if (about.beam_size) asked.beam_size = at("beams").valueAsNumber;
    asked.why = chosen.why.map((item) => item.item);
  }
  if (kind() === "user") asked.user = at("user").value.trim();
  else asked.history = chosen.history.map((item) => item.item);
  return asked;
}

async function recommend() {
  const call = ++latest, asked = question();
  if (kind() === "history" && !chosen.history.length) {
    at("result").hidden = true;
    return say("Add an item to the history.");
  }
  if (kind() === "user" && !asked.user) return say("Pick a user.");
  if (!at("form").reportValidity()) return;
  say("\u2026");
  try {
    const data = await fetched("/api/recommend", asked);
    if (call !== latest) return;
    say("");
    show(data);
  } catch (error) {
    if (call !== latest) return;
    at("result").hidden = true;
    say(error.message, true);
  }
}

function show(data) {
  tree = data;
  at("result").hidden = false;
  showForm();
  const n = data.history.length;
  const read = data.n_read < n ? `, of which the model reads the last ${data.n_read}` : "";
  at("history-summary").textContent = `${several(n, "item")}${read}; latest first`;
  at("history").replaceChildren(...data.history.toReversed().map((x) => element("li", {}, nameOf(x))));
  const over = data.settings?.renormalise ? "the codes that lead to an item" : "the whole codebook";
  at("answer-note").textContent = {
    beam: `Found by a search of at most ${data.settings?.beam_size} beams; probabilities are over ${over}.`,
    exact: "Every item is scored, nothing is searched: there are no beams, and nothing is dropped.",
    none: `${data.model} scores all items at once and has no semantic IDs: there are no beams to show.`,
  }[data.decoding];
  const most = Math.max(...data.items.map((item) => item.probability ?? 0));
  at("answer").replaceChildren(...data.items.map((item) => {
    const line = data.levels.length // without a tree there is nothing to mark in it
      ? element("button", {type: "button", class: "entry", "aria-pressed": "false"})
      : element("div", {class: "entry"});
    line.append(
      element("span", {class: "rank"}, item.rank),
      element("span", {}, nameOf(item)),
      element("span", {class: "score"}, item.probability ? percent(item.probability) : number(item.score)),
    );
    if (item.probability) {
      const bar = element("span", {class: "bar"});
      bar.style.width = `${(100 * item.probability) / most}%`;
      line.append(bar);
    }
    for (const text of terms(item)) line.append(element("span", {class: "terms quiet"}, text));
    if (data.levels.length) line.addEventListener("click", () => {
      const on = line.getAttribute("aria-pressed") !== "true";
      for (const other of at("answer").querySelectorAll("button")) other.setAttribute("aria-pressed", "false");
      line.setAttribute("aria-pressed", String(on));
      follow(on ? item.rank : null);
    });
    const place = element("li");
    place.append(line);
    return place;
  }));
  const more = [
    ["Would follow", data.next.map((item) => `${nameOf(item)} (${number(item.score)})`)],
    ["Left out with the history, though among the best", data.removed.map(nameOf)],
  ];
  at("further").replaceChildren(...more.filter(([, names]) => names.length).map(
    ([title, names]) => element("p", {}, `${title}: ${names.join("; ")}`)));
  showWhy(data);
  at("tree-part").hidden = !data.levels.length;
  at("detail").textContent = "Choose a prefix, or an item of the answer.";
  follow = data.levels.length
    ? drawTree(at("tree"), data, (text) => { at("detail").textContent = text; }) : () => {};
  drawTables(at("tables"), data);
}
let follow = () => {};

function terms(item) {
  if (item.filled) return ["on no beam; it fills the place by its popularity"];
  return item.sources.map((source) => {
    const codes = source.code_log_probs;
    let text = `SID ${source.sid.slice(0, 8).join("-")}${source.sid.length > 8 ? "-\u2026" : ""}`;
    text += `, log p ${number(source.log_prob)}`;
    if (codes) text += codes.length <= 8
      ? ` = ${codes.map(number).join(" + ")}` : ` = ${number(codes.reduce((a, b) => a + b))} of its codes`;
    if (source.normaliser !== null) text += ` + ${number(source.normaliser)} (catalogue)`;
    if (source.log_share) text += ` + ${number(source.log_share)} (its share of the SID)`;
    return text + (item.added === null ? "" : `; score + ${number(item.added)} (items)`);
  });
}

function showWhy(data) {
  at("why-result").hidden = !data.why.length;
  at("followed").replaceChildren(...data.why.flatMap((entry) => {
    const out = entry.left_out ? "left out as an item of the history" : "not in the answer";
    const lines = [element("h3", {}, `${nameOf(entry)}: ${entry.rank ? `rank ${entry.rank}` : out}`)];
    if (entry.place) lines.push(element("p", {},
      `Scored without a search it has ${number(entry.score)}, place ${entry.place} of ${data.n_items}.`));
    for (const sid of entry.sids) {
      const list = element("ul");
      list.append(...sid.steps.map((step) => {
        const fate = {beam: `dropped, missed by ${number(step.missed_by ?? 0)}`,
          history: "dropped: only items of the history"}[step.dropped] ?? "kept";
        return element("li", {}, `${step.prefix.join("-")}: log p ${number(step.log_prob)}, `
          + `place ${step.place} of ${step.of}, ${fate}`);
      }));
      lines.push(list);
    }
    if (!data.levels.length) lines.push(...terms({...entry, filled: false}).map((text) => element("p", {}, text)));
    return lines;
  }));
}

async function anyUser(path) {
  const {users} = await fetched(path);
  if (!users.length) return;
  at("user").value = users[0].user;
  await recommend();
}

function guarded(action) {
  return () => Promise.resolve(action()).catch((error) => say(error.message, true));
}

async function begin() {
  about = await fetched("/api/about");
  at("title").textContent = document.title = `${about.model} on ${about.dataset}`;
  at("k").value = about.k;
  at("k").max = about.most_items;
  at("beams").value = about.beam_size ?? 1;
  at("beams").max = about.most_beams;
  at("exclude").checked = about.exclude_history;
  at("beams-part").hidden = !about.beam_size;
  at("why-part").hidden = !about.explains;
  at("kinds").hidden = !(about.n_users && about.takes_histories);
  if (!about.n_users) document.querySelector("input[value=history]").checked = true;

  const items = async (like) => (await fetched(`/api/items?like=${encodeURIComponent(like)}`)).items;
  const both = (item) => (item.title ? [item.title, item.item] : [item.item]);
  picker(at("user"), async (like) => (await fetched(`/api/users?like=${encodeURIComponent(like)}`)).users,
    (user) => [user.user, several(user.n_items, "item")],
    (user) => {
      at("user").value = user.user;
      recommend();
    });
  for (const [id, list] of [["item", "history"], ["why", "why"]]) {
    picker(at(id), items, both, (item) => {
      if (list === "history" || !chosen[list].some((one) => one.item === item.item)) chosen[list].push(item);
      at(id).value = "";
      showForm();
      recommend();
    });
  }
  at("random").addEventListener("click", guarded(() => anyUser("/api/users?random")));
  at("own").addEventListener("click", () => {
    chosen.history = tree.history.slice();
    document.querySelector("input[value=history]").checked = true;
    showForm();
    recommend();
  });
  for (const input of document.querySelectorAll("input[name=kind]")) {
    input.addEventListener("change", () => {
      showForm();
      recommend();
    });
  }
  for (const id of ["k", "beams", "exclude"]) at(id).addEventListener("change", recommend);
  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    recommend();
  });
  showForm();
  if (about.n_users) await anyUser("/api/users");
  else say("Add an item to the history.");
}

begin().catch((error) => say(error.message, true));
