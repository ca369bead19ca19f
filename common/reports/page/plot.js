// The plot: quality against cost. One point is in the order of Tab; the arrows walk from point to point.
const SVG = "http://www.w3.org/2000/svg";
let current = null; // id of the point that Tab reaches

function shape(tag, attributes = {}, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// Round values of an axis from low to high, about `count` of them.
function steps(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) values.push(Number(value.toPrecision(12)));
  return values;
}

// The horizontal axis: 0 and "not recorded" have places of their own beside a logarithmic scale.
function across(values, left, right) {
  const positive = values.filter((value) => value > 0);
  const zeros = values.filter((value) => value === 0).length;
  const zero = zeros ? Math.min(90, 40 + 3 * zeros, (right - left) / 4) : 0;
  const none = values.includes(null) ? Math.min(110, (right - left) / 4) : 0;
  let [low, high] = positive.length ? [Math.min(...positive), Math.max(...positive)] : [0.1, 1];
  [low, high] = [Math.log10(low) - 0.08, Math.log10(high) + 0.08];
  if (high - low < 0.5) [low, high] = [low - 0.25, high + 0.25];
  const [from, to] = [left + zero + 8, right - none - 8];
  const at = (value) => (value === null ? right - none / 2 : value === 0 ? left + zero / 2 : from + ((Math.log10(value) - low) / (high - low)) * (to - from));
  const digits = high - low > 2.5 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power++) {
    for (const digit of digits) {
      const value = digit * 10 ** power;
      if (Math.log10(value) >= low && Math.log10(value) <= high) ticks.push(value);
    }
  }
  return { at, ticks, zero, none };
}

const short = (value) => (value >= 1000 ? value.toLocaleString("en") : String(Number(value.toPrecision(3))));

function plot() {
  const host = get("plot");
  const choices = view.shown.filter((each) => each.score !== null);
  const width = Math.max(280, host.clientWidth);
  const height = width < 560 ? 340 : 400;
  const [left, right, top, bottom] = [46, width - 10, 12, height - 44];
  const canvas = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "quality against cost; the table below has the same choices" });
  host.replaceChildren(canvas);
  if (!choices.length) {
    canvas.append(shape("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "Nothing fits: widen a limit."));
    get("point").textContent = "";
    return;
  }
  const cost = (each) => (state.x === "gb" ? each.bytes && each.bytes / 1e9 : each[state.x]);
  const ends = choices.flatMap((each) => each.interval ?? [each.score]);
  const pad = Math.max(1, (Math.max(...ends) - Math.min(...ends)) * 0.06);
  const [low, high] = [Math.min(...ends) - pad, Math.max(...ends) + pad];
  const y = (score) => bottom - ((score - low) / (high - low)) * (bottom - top);
  const x = across(choices.map(cost), left, right);
  axes(canvas, x, y, { low, high, left, right, top, bottom, height });
  const room = (each) => (cost(each) === null ? x.none - 24 : cost(each) === 0 ? x.zero - 18 : 90);
  const places = spread(choices, (each) => x.at(cost(each)), room);
  for (const [front, kind] of [[view.printed, "front dashed"], [view.front, "front"]]) {
    if (front.length > 1) canvas.append(shape("path", { class: kind, d: stairs(front, (each) => places.get(each), y) }));
  }
  const order = [...choices].sort((one, other) => places.get(one) - places.get(other) || other.score - one.score);
  if (!order.some((each) => each.id === current)) current = (view.groups[0]?.[0] ?? order[0]).id;
  const marks = order.map((each) => mark(each, places.get(each), y));
  const hollow = (each) => each.querySelector(".printed") !== null; // what is measured is drawn over it
  canvas.append(...marks.filter(hollow), ...marks.filter((each) => !hollow(each)));
  for (const text of labels(places, y, width)) canvas.append(text);
  walk(marks);
  tell(order.find((each) => each.id === current));
}

function axes(canvas, x, y, box) {
  for (const value of steps(box.low, box.high, 6)) {
    canvas.append(shape("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    canvas.append(shape("text", { x: box.left - 6, y: y(value) + 4, "text-anchor": "end" }, short(value)));
  }
  const under = (place, text) => canvas.append(shape("text", { x: place, y: box.bottom + 16, "text-anchor": "middle" }, text));
  let last = -1e9;
  for (const value of x.ticks) {
    const place = x.at(value);
    canvas.append(shape("line", { class: "grid", x1: place, x2: place, y1: box.top, y2: box.bottom }));
    if (place - last > 34) under(place, short(value));
    if (place - last > 34) last = place;
  }
  for (const [size, edge, text, place] of [[x.zero, box.left + x.zero, "0", x.at(0)], [x.none, box.right - x.none, "not recorded", x.at(null)]]) {
    if (!size) continue;
    canvas.append(shape("line", { class: "axis dashed", x1: edge, x2: edge, y1: box.top, y2: box.bottom }));
    under(place, text);
  }
  canvas.append(shape("line", { class: "axis", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  const unit = get("x").selectedOptions[0].textContent;
  canvas.append(shape("text", { x: (box.left + box.right) / 2, y: box.height - 8, "text-anchor": "middle" }, `${unit}; up is ${DATA.datasets.find((each) => each.key === state.data).metric}, %`));
}

// {choice: horizontal place}: choices at the same place stand side by side, within the room (pixels) of that place.
function spread(choices, at, room) {
  const columns = new Map();
  for (const each of choices) {
    const column = Math.round(at(each) / 3);
    columns.set(column, [...(columns.get(column) ?? []), each]);
  }
  const places = new Map();
  for (const column of columns.values()) {
    const gap = Math.min(8, room(column[0]) / Math.max(1, column.length - 1));
    column.sort((one, other) => other.score - one.score);
    column.forEach((each, i) => places.set(each, at(each) + (i - (column.length - 1) / 2) * gap));
  }
  return places;
}

function stairs(front, at, y) {
  return front.map((each, i) => (i ? `H${at(each)}V${y(each.score)}` : `M${at(each)} ${y(each.score)}`)).join("");
}

function mark(choice, place, y) {
  const group = shape("g", { class: "mark", role: "button", tabindex: choice.id === current ? "0" : "-1", "data-open": choice.id, "aria-label": caption(choice) });
  const first = view.letter.get(choice) === "A" ? " first" : "";
  if (choice.interval) {
    const [low, high] = choice.interval.map(y);
    group.append(shape("path", { class: `whisker${first}`, d: `M${place} ${low}V${high}M${place - 3} ${low}h6M${place - 3} ${high}h6` }));
  }
  const kind = choice.measured ? `measured${first}` : `printed${choice.suspect ? " suspect" : ""}`;
  group.append(shape("circle", { class: kind, cx: place, cy: y(choice.score), r: 6 }), shape("circle", { class: "hit", cx: place, cy: y(choice.score), r: 12 }));
  return group;
}

// Names of the front's choices and of the best one, where there is room: above or below a point, right or left of it.
function labels(places, y, width) {
  const taken = [...places].map(([each, place]) => [place - 6, y(each.score) - 6, 12, 12]);
  const clash = ([left, upper, long, high]) => taken.some(([x, top, wide, tall]) => x < left + long && left < x + wide && top < upper + high && upper < top + tall);
  const texts = [];
  for (const each of new Set([view.groups[0]?.[0], ...[...view.front].reverse()])) {
    if (!places.has(each)) continue;
    const whole = `${each.model}, ${each.name}`;
    const text = whole.length > 40 ? `${whole.slice(0, 39)}…` : whole;
    const [place, level, length] = [places.get(each), y(each.score), text.length * 6.7];
    const boxes = [[place + 7, level - 21], [place - 7 - length, level - 21], [place + 7, level + 7], [place - 7 - length, level + 7]];
    const box = boxes.map(([left, upper]) => [left, upper, length, 14]).find((one) => one[0] > 48 && one[0] + length < width && one[1] > 0 && !clash(one));
    if (!box) continue;
    taken.push(box);
    texts.push(shape("text", { class: "label", x: box[0], y: box[1] + 11 }, text));
  }
  return texts;
}

function caption(choice) {
  const kind = choice.measured ? "" : choice.suspect ? ", published, not to be relied on" : ", published";
  return `${title(choice)}: ${choice.text}${kind}; memory ${gigabytes(choice.bytes)}, price ${dollars(choice.usd)}, licence ${choice.licence}; ${choice.record[0]}`;
}

const tell = (choice) => { get("point").textContent = caption(choice); };

function walk(marks) {
  const by = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -Infinity, End: Infinity };
  marks.forEach((group, i) => {
    const choice = DATA.choices.find((each) => each.id === group.dataset.open);
    group.addEventListener("pointerenter", () => tell(choice));
    group.addEventListener("focus", () => tell(choice));
    group.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") open(choice.id, group);
      else if (by[event.key] === undefined) return;
      else {
        const next = marks[Math.max(0, Math.min(marks.length - 1, i + by[event.key]))];
        for (const each of marks) each.setAttribute("tabindex", each === next ? "0" : "-1");
        current = next.dataset.open;
        next.focus();
      }
      event.preventDefault();
    });
  });
}
