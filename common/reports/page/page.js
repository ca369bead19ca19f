"use strict";
// The question, what fits it, groups and front, the answer and the table. Every text of the data becomes textContent.
const DATA = JSON.parse(document.getElementById("content").textContent);
const get = (id) => document.getElementById(id);
const KEYS = { data: DATA.datasets[0]?.key ?? "", gb: "", usd: "", labels: "", licence: "any", find: "", unknown: "1" };
Object.assign(KEYS, { published: "1", suspect: "", x: "usd", sort: "score", down: "1", run: "" });
const LIMITS = { gb: ["bytes", "GB", "memory"], usd: ["usd", "USD", "price"], labels: ["labels", "labels", "labels"] };
const TICKS = ["unknown", "published", "suspect"];
const state = { ...KEYS };
let view = null; // what is shown: {shown, groups, front}

function element(tag, text, attributes = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// The address

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const key of Object.keys(KEYS)) state[key] = given.get(key) ?? KEYS[key];
  if (!DATA.datasets.some((each) => each.key === state.data)) state.data = KEYS.data;
  if (!["usd", "gb", "labels"].includes(state.x)) state.x = KEYS.x;
  if (!COLUMNS.some((column) => column.key === state.sort)) state.sort = KEYS.sort;
}

function writeAddress() {
  const changed = Object.entries(state).filter(([key, value]) => value !== KEYS[key]);
  const text = new URLSearchParams(changed).toString();
  if (text !== location.hash.slice(1)) history.replaceState(null, "", `#${text}`);
}

// What fits

function limit(key) {
  const number = Number(state[key]);
  return state[key] === "" || !Number.isFinite(number) || number < 0 ? null : key === "gb" ? number * 1e9 : number;
}

// The words of the limits that a choice may break, because its record does not say.
function missing(choice) {
  return Object.entries(LIMITS).filter(([key, [field]]) => limit(key) !== null && choice[field] === null).map(([, [, , word]]) => word);
}

function fits(choice) {
  if (choice.dataset !== state.data || (!choice.measured && !state.published) || (choice.suspect && !state.suspect)) return false;
  if (state.licence === "free" ? !choice.free : state.licence !== "any" && choice.licence !== state.licence) return false;
  if (!`${title(choice)} ${choice.folder}`.toLowerCase().includes(state.find.trim().toLowerCase())) return false;
  return Object.entries(LIMITS).every(([key, [field]]) => {
    const most = limit(key);
    return most === null || (choice[field] === null ? most > 0 && Boolean(state.unknown) : choice[field] <= most);
  });
}

const tests = new Map();
for (const test of DATA.tests) for (const pair of [[test.one, test.other], [test.other, test.one]]) tests.set(pair.join("\n"), test);

function tied(one, other) {
  const test = tests.get(`${one.id}\n${other.id}`);
  if (test) return test.word === "no difference seen";
  if (!one.interval || !other.interval) return true;
  return one.interval[0] <= other.interval[1] && other.interval[0] <= one.interval[1];
}

const scored = (choices, measured) => choices.filter((each) => each.measured === measured && each.score !== null)
  .sort((one, other) => other.score - one.score);

// [[choice]]: the best of what is left and all that cannot be told apart from it, again and again.
function grouped(choices) {
  const groups = [];
  let left = scored(choices, true);
  while (left.length) {
    const [best] = left;
    groups.push(left.filter((each) => each === best || tied(best, each)));
    left = left.filter((each) => !groups.at(-1).includes(each));
  }
  return groups;
}

// The choices that no other beats, by cost: none has a higher score at the same cost or less.
function frontOf(choices) {
  const field = LIMITS[state.x][0];
  const front = [];
  for (const each of choices.filter((one) => one[field] !== null).sort((one, other) => one[field] - other[field] || other.score - one.score)) {
    if (!front.length || each.score > front.at(-1).score) front.push(each);
  }
  return front;
}

// Choices under the front that cannot be told apart from the front's choice at their cost.
function besideFront(choices, front) {
  const field = LIMITS[state.x][0];
  return choices.filter((each) => {
    const over = front.filter((one) => one[field] <= each[field]).at(-1);
    return each[field] !== null && !front.includes(each) && over && tied(over, each);
  });
}

function look() {
  const shown = DATA.choices.filter(fits);
  const measured = scored(shown, true);
  const front = frontOf(measured);
  view = { shown, groups: grouped(shown), front, beside: besideFront(measured, front), printed: frontOf(scored(shown, false)) };
  view.letter = new Map(view.groups.flatMap((group, i) => group.map((each) => [each, letter(i)])));
}

const letter = (i) => (i < 26 ? "" : letter(Math.floor(i / 26) - 1)) + String.fromCharCode(65 + (i % 26));

// Words

const many = (number, word) => (number === null ? `${word} not recorded` : `${number.toLocaleString("en")} ${word}`);
const title = (choice) => choice.title;
const gigabytes = (bytes) => (bytes === null ? "not recorded" : `${(bytes / 1e9).toFixed(1)} GB`);
function dollars(usd) {
  if (usd === null) return "not recorded";
  return `${usd === 0 || usd >= 0.1 ? usd.toFixed(2) : usd.toPrecision(1)} USD`;
}

function limits() {
  const words = Object.entries(LIMITS).filter(([key]) => limit(key) !== null).map(([key, [, unit]]) => `${Number(state[key])} ${unit}`);
  const all = words.length > 1 ? `${words.slice(0, -1).join(", ")} and ${words.at(-1)}` : words.join("");
  const more = [];
  if (state.licence !== "any") more.push(state.licence === "free" ? "free licence" : `licence ${state.licence}`);
  if (state.find.trim()) more.push(`“${state.find.trim()}” in the name`);
  return [all && `at most ${all}`, ...more].filter(Boolean).join(", ") || "no limit";
}

// " (memory and price not recorded)" of what a limit concerns; the title says it of labels.
function lacking(choice) {
  const lacks = missing(choice).filter((word) => word !== "labels");
  return lacks.length ? ` (${lacks.join(" and ")} not recorded)` : "";
}

// "X reaches 61.8 [60.7, 62.9]; Y 61.0 […] cannot be told apart from it", as nodes.
function verdict(group) {
  const [best, ...ties] = group;
  const nodes = [element("strong", title(best)), ` reaches ${best.text}${lacking(best)}`];
  const named = ties.slice(0, 3).map((each) => `${title(each)} ${each.text}`).join("; ") + (ties.length > 3 ? `; and ${ties.length - 3} more` : "");
  nodes.push(ties.length ? `; ${named} cannot be told apart from it.` : "; nothing ties with it.");
  return nodes;
}

function answer() {
  const dataset = DATA.datasets.find((each) => each.key === state.data);
  const nodes = [dataset ? `${dataset.title}, ${dataset.metric}, ${limits()}: ` : "There are no records. "];
  const [first] = view.groups;
  nodes.push(...(first ? verdict(first) : ["nothing that was measured fits."]));
  if (first && missing(first[0]).length) {
    const known = grouped(view.shown.filter((each) => !missing(each).length))[0];
    nodes.push(` Counting only what is recorded: `, ...(known ? verdict(known) : ["nothing."]));
  }
  const [printed] = scored(view.shown, false);
  if (printed) nodes.push(` Published, without an interval: ${title(printed)} ${printed.text}${printed.suspect ? " †" : ""}${lacking(printed)}.`);
  get("answer").replaceChildren(...nodes);
}

// The table

const COLUMNS = [
  { key: "group", title: "group", of: (each) => view.letter.get(each) ?? "", by: (each) => view.groups.findIndex((group) => group.includes(each)) },
  { key: "name", title: "choice", by: (each) => title(each) },
  { key: "score", title: "score, 95 % interval", by: (each) => each.score, down: true },
  { key: "labels", title: "labels", by: (each) => each.labels },
  { key: "gb", title: "memory", by: (each) => each.bytes },
  { key: "usd", title: "price", by: (each) => each.usd },
  { key: "licence", title: "licence", by: (each) => each.licence },
  { key: "front", title: "front", by: (each) => ["on the front", "≈ tied with it"].indexOf(standing(each)) },
];

function standing(choice) {
  if (view.front.includes(choice)) return "on the front";
  if (view.printed.includes(choice)) return "on the published front";
  return view.beside.includes(choice) ? "≈ tied with it" : "";
}

function head() {
  const row = element("tr");
  for (const column of COLUMNS) {
    const sorts = state.sort === column.key;
    const button = element("button", `${column.title}${sorts ? (state.down ? " ▾" : " ▴") : ""}`, { type: "button", "data-sort": column.key });
    row.append(element("th", null, { scope: "col", "aria-sort": sorts ? (state.down ? "descending" : "ascending") : "none" }, button));
  }
  get("table").tHead.replaceChildren(row);
}

function sorted(choices) {
  const { by } = COLUMNS.find((column) => column.key === state.sort);
  const sign = state.down ? -1 : 1;
  const last = (value) => value === null || value === -1; // what is not known comes last
  return [...choices].sort((one, other) => {
    const [a, b] = [by(one), by(other)];
    if (last(a) || last(b)) return last(a) - last(b) || other.score - one.score;
    return sign * (typeof a === "string" ? a.localeCompare(b) : a - b) || other.score - one.score;
  });
}

function row(choice) {
  const cell = (label, text, small, kind) => {
    const made = element("td", text, { "data-label": label, ...(kind && { class: kind }) });
    if (small) made.append(element("small", small));
    return made;
  };
  const open = element("button", title(choice), { type: "button", class: "open", "data-open": choice.id });
  const name = element("td", null, { class: "choice" }, open);
  const [path, ...more] = choice.record;
  name.append(element("small", path + (more.length ? `, and ${more.length} more` : "")));
  const note = choice.measured ? (choice.n ? `n = ${choice.n.toLocaleString("en")}` : choice.note) : `published${choice.suspect ? ", not to be relied on" : ""}`;
  const kind = `score number${choice.measured && choice.score === null ? " bad" : ""}`;
  return element("tr", null, {}, cell("group", view.letter.get(choice) ?? "", "", "group"), name,
    cell("score", choice.text + (choice.suspect ? " †" : ""), note, kind),
    cell("labels", choice.labels === null ? "not recorded" : choice.labels.toLocaleString("en"), "", "number"),
    cell("memory", gigabytes(choice.bytes), "", "number"), cell("price", dollars(choice.usd), "", "number"),
    cell("licence", choice.licence), cell("front", standing(choice)));
}

function table() {
  head();
  get("table").tBodies[0].replaceChildren(...sorted(view.shown).map(row));
  const total = DATA.choices.filter((each) => each.dataset === state.data).length;
  get("count").textContent = `${view.shown.length} of ${total} fit`;
}
