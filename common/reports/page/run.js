// A run: its command, identity, figures, curves and answers. And the start of the page.
let opener = null;

function open(id, from) {
  const choice = DATA.choices.find((each) => each.id === id);
  if (!choice) return;
  opener = from ?? opener;
  state.run = id;
  writeAddress();
  get("name").textContent = title(choice);
  get("body").replaceChildren(...(choice.measured ? opened(choice, DATA.details[id] ?? {}) : quoted(choice)));
  if (!get("run").open) get("run").showModal();
  get("run").scrollTop = 0;
}

const heading = (text) => element("h3", text);
const where = (choice) => choice.record.map((path) => element("p", null, {}, element("code", path)));

function pairs(rows, names) {
  const body = element("tbody");
  for (const cells of rows) body.append(element("tr", null, {}, ...cells.map((text, i) => element(i ? "td" : "th", text, i ? {} : { scope: "row" }))));
  const made = element("table", null, {}, body);
  if (names) made.prepend(element("thead", null, {}, element("tr", null, {}, ...names.map((name) => element("th", name, { scope: "col" })))));
  return element("div", null, { class: "scroll" }, made);
}

const words = (value) => (Array.isArray(value) ? value.join(" ") : value !== null && typeof value === "object" ? Object.entries(value).map(([name, each]) => `${name} ${words(each)}`).join(", ") : String(value));
const listed = (block) => Object.entries(block ?? {}).filter(([, value]) => value !== null && words(value) !== "").map(([name, value]) => [name, words(value)]);

function figure(metric) {
  if (!metric || metric.value === null) return "-";
  const interval = metric.ci95 ? ` [${metric.ci95.join(", ")}]` : "";
  return `${metric.value}${interval}${metric.n ? `, n = ${metric.n}` : ""}`;
}

function costs(choice) {
  return pairs([["memory", gigabytes(choice.bytes), choice.bytes_of], ["price", dollars(choice.usd), choice.usd_of], ["licence", choice.licence, "of the base model"]]);
}

function quoted(choice) {
  const nodes = [element("p", `${choice.text}${choice.suspect ? " †, not to be relied on" : ""}: a published figure, without an interval.`)];
  if (choice.note) nodes.push(element("p", choice.note));
  return [...nodes, element("p", `Printed in: ${choice.source}. Line:`), ...where(choice), costs(choice)];
}

function opened(choice, run) {
  const nodes = [heading("Record"), ...where(choice)];
  if (choice.note) nodes.push(element("p", `${choice.status}: ${choice.note}`, { class: "bad" }));
  if (run.seeds) nodes.push(element("p", `One run a seed (${run.seeds.join(", ")}): figures are over all of them, the rest is of the first record.`));
  nodes.push(heading("Command"), element("pre", run.command));
  nodes.push(heading("Scores, % with 95 % intervals, as recorded"), pairs(Object.entries(run.metrics ?? {}).map(([name, both]) => [DATA.titles[name] ?? name, ...both.map(figure)]), ["metric", "base", "tuned"]));
  nodes.push(heading("Cost"), costs(choice));
  nodes.push(...compared(choice), ...wrong(run.mistakes), ...curves(run), ...answered(choice, run));
  if (!run.identity) return nodes;
  const more = [["Differs from its script in", run.deviations], ["Identity", run.identity], ["Wording", run.wording], ["Data", run.data], ["Training", run.training], ["Inference", run.inference]];
  more.push(["Recorded cost", run.cost], ["Environment", run.environment], ["Time", { started: run.started_at, finished: run.finished_at }]);
  nodes.push(heading("What it was"));
  for (const [name, block] of more) {
    const rows = listed(block);
    if (rows.length) nodes.push(element("details", null, {}, element("summary", name), pairs(rows)));
  }
  return nodes;
}

function compared(choice) {
  const found = DATA.tests.filter((test) => [test.one, test.other].includes(choice.id));
  const rows = found.map((test) => {
    const other = test.one === choice.id ? test.other : test.one;
    const turned = test.one !== choice.id;
    const [value, low, high] = turned ? [-test.value, -test.high, -test.low] : [test.value, test.low, test.high];
    const word = turned ? { better: "worse", worse: "better" }[test.word] ?? test.word : test.word;
    const against = DATA.choices.find((each) => each.id === other);
    return [against ? title(against) : other, `${value.toFixed(1)} [${low.toFixed(1)}, ${high.toFixed(1)}]`, word, test.claim];
  });
  return rows.length ? [heading("Tests on the same rows"), pairs(rows, ["compared with", "points", "this one is", "claim about"])] : [];
}

function wrong(stages) {
  const nodes = [];
  for (const [stage, each] of Object.entries(stages ?? {})) {
    nodes.push(element("p", `${stage}: ${each.right} of ${each.rows} rows right.${each.pairs.length ? " Most frequent mistakes:" : ""}`));
    if (each.pairs.length) nodes.push(pairs(each.pairs.map(([truth, said, count]) => [truth, said, String(count)]), ["true class", "said", "rows"]));
  }
  return nodes.length ? [heading("Right and wrong"), ...nodes] : [];
}

function curves(run) {
  if (!run.curves && !run.validation?.length) return run.curve_points ? [heading("Curves"), element("p", `The record has ${run.curve_points} points; they did not fit this page.`)] : [];
  const nodes = [heading("Curves")];
  const steps = run.curves?.step;
  const figures = Object.entries(run.curves ?? {}).filter(([name]) => name !== "step").map(([name, values]) => curve(name, steps, values));
  if (figures.length) nodes.push(element("div", null, { class: "curves" }, ...figures));
  if (steps && steps.length < run.curve_points) nodes.push(element("p", `${steps.length} of the record's ${run.curve_points} points.`));
  const rows = (run.validation ?? []).map((each) => [String(each.epoch), String(each.loss ?? "-"), String(each.accuracy ?? "-")]);
  return rows.length ? [...nodes, pairs(rows, ["epoch", "validation loss", "accuracy"])] : nodes;
}

function curve(name, steps, values) {
  const known = values.map((value, i) => [steps[i] ?? i, value]).filter(([, value]) => value !== null);
  const [xs, ys] = [known.map(([x]) => x), known.map(([, y]) => y)];
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const place = ([x, y]) => `${(4 + (292 * (x - left)) / (right - left || 1)).toFixed(1)},${(86 - (80 * (y - low)) / (high - low || 1)).toFixed(1)}`;
  const text = `${name.replaceAll("_", " ")}: ${low} to ${high}, steps ${left} to ${right}`;
  const canvas = shape("svg", { viewBox: "0 0 300 92", role: "img", "aria-label": text });
  canvas.append(shape("line", { class: "axis", x1: 4, x2: 296, y1: 90, y2: 90 }), shape("polyline", { class: "curve", points: known.map(place).join(" ") }));
  return element("figure", null, {}, canvas, element("figcaption", text));
}

// Answers side by side

const KINDS = {
  all: ["all rows", () => true],
  gained: ["tuned scores higher", (row) => row[6] > row[5]],
  lost: ["base scores higher", (row) => row[5] > row[6]],
  right: ["right", (row) => (row[6] ?? row[5]) >= 100],
  wrong: ["wrong", (row) => (row[6] ?? row[5]) < 100],
};

function answered(choice, run) {
  const nodes = [heading("Answers")];
  if (!run.answers) {
    const text = "Records hold no answers: they are in the folder that the run left where it ran. The command above makes them; then the same page, made there, has them:";
    return [...nodes, element("p", text), element("pre", `python -m common report${choice.id.includes("/experiments/") ? " --experiments" : ""}`)];
  }
  const { rows, total, labelled, scored: metric } = run.answers;
  const find = element("input", null, { type: "search", placeholder: "any text", "data-find": "" });
  const kind = element("select", null, { "data-kind": "" }, ...Object.entries(KINDS).filter(([key]) => labelled || !["right", "wrong"].includes(key)).map(([key, [name]]) => element("option", name, { value: key })));
  const [list, count] = [element("ul", null, { class: "answers" }), element("p", null, { role: "status" })];
  const show = () => {
    const wanted = find.value.trim().toLowerCase();
    const fitting = rows.filter((each) => KINDS[kind.value][1](each) && (!wanted || each.slice(1, 5).some((text) => text?.toLowerCase().includes(wanted))));
    count.textContent = `${fitting.length} of ${rows.length} rows${rows.length < total ? ` (the first of the run's ${total} test rows)` : ""}`;
    list.replaceChildren(...fitting.slice(0, 200).map((each) => answerOf(each, labelled, metric)));
  };
  find.addEventListener("input", show);
  kind.addEventListener("change", show);
  show();
  const filter = element("div", null, { class: "filter" }, element("label", "Text holds ", {}, find), element("label", "Rows ", {}, kind));
  return [...nodes, filter, count, list];
}

function answerOf([number, question, reference, base, tuned, before, after], labelled, metric) {
  const part = (name, text, score) => {
    const verdictOf = score === null || score === undefined ? "" : labelled ? (score >= 100 ? " ✓ right" : " ✗ wrong") : ` ${DATA.titles[metric] ?? metric} ${score}`;
    const head = element("b", name);
    if (verdictOf) head.append(element("span", verdictOf, { class: labelled ? (score >= 100 ? "good" : "bad") : "" }));
    return element("div", null, {}, head, element("div", text ?? "not kept", { class: "text" }));
  };
  const sides = [["base", base, before], ["tuned", tuned, after]].filter(([, text, score]) => text !== null || score !== null);
  return element("li", null, {}, part(`test row ${number + 1}`, question), ...(reference === null ? [] : [part("wanted", reference)]), element("div", null, { class: "pair" }, ...sides.map((side) => part(...side))));
}

// The start

function show() {
  look();
  answer();
  plot();
  table();
  writeAddress();
}

function fill() {
  for (const key of ["data", "gb", "usd", "labels", "licence", "find", "x"]) get(key).value = state[key];
  for (const key of TICKS) get(key).checked = Boolean(state[key]);
}

function arrive() {
  readAddress();
  fill();
  show();
  if (state.run) open(state.run, null);
  else if (get("run").open) get("run").close();
}

function begin() {
  get("data").replaceChildren(...DATA.datasets.map((each) => element("option", `${each.title}, ${each.metric}`, { value: each.key })));
  const licences = [...new Set(DATA.choices.map((each) => each.licence))].sort();
  get("licence").replaceChildren(element("option", "any", { value: "any" }), element("option", "free", { value: "free" }), ...licences.map((each) => element("option", each, { value: each })));
  get("reference").textContent = `${DATA.reference.name}, ${DATA.reference.usd_per_hour} USD an hour on ${DATA.reference.as_of}`;
  get("left").hidden = !DATA.left_out.length;
  get("left_out").replaceChildren(...DATA.left_out.map((text) => element("li", text)));
  get("question").addEventListener("submit", (event) => event.preventDefault());
  for (const key of ["data", "gb", "usd", "labels", "licence", "find", "x"]) get(key).addEventListener("input", () => { state[key] = get(key).value; show(); });
  for (const key of TICKS) get(key).addEventListener("change", () => { state[key] = get(key).checked ? "1" : ""; show(); });
  get("reset").addEventListener("click", () => { Object.assign(state, KEYS, { data: state.data, x: state.x }); fill(); show(); });
  get("close").addEventListener("click", () => get("run").close());
  get("run").addEventListener("close", () => { state.run = ""; writeAddress(); opener?.isConnected && opener.focus(); });
  document.addEventListener("click", (event) => {
    const sort = event.target.closest("[data-sort]")?.dataset.sort;
    if (sort) {
      const same = state.sort === sort;
      state.down = same ? (state.down ? "" : "1") : COLUMNS.find((column) => column.key === sort).down ? "1" : "";
      state.sort = sort;
      table();
      writeAddress();
      get("table").querySelector(`[data-sort="${sort}"]`).focus();
    }
    const mark = event.target.closest("[data-open]");
    if (mark) open(mark.dataset.open, mark);
  });
  addEventListener("hashchange", arrive);
  let width = 0;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) > 1 && view) plot();
    width = entry.contentRect.width;
  }).observe(get("plot"));
  arrive();
}

begin();
