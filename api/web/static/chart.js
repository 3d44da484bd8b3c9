// Charts as SVG: drawn at the width that they have, redrawn when it changes, with their numbers as a table beside them.
import { element } from "./common.js";

const SPACE = "http://www.w3.org/2000/svg";
const HEIGHT = 220, RIGHT = 12, TOP = 12, BOTTOM = 30;
const DASHES = ["", "6 3", "2 3", "8 3 2 3", "1 4", "10 4", "4 2"];

function draw(parent, name, attributes, text) {
  const made = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function steps(low, high) {
  const rough = (high - low) / 4 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * unit).find((s) => s >= rough);
  const out = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-9; at += step) out.push(at);
  return out;
}

// Labels of an axis with as many decimals as keep its steps apart, the same number on all of them.
function labels(at, format) {
  for (const digits of [0, 1, 2, 3]) {
    const texts = at.map((value) => format(value, digits)), read = texts.map(parseFloat);
    const even = read.every((value, i) => i < 2 || Math.abs(value - 2 * read[i - 1] + read[i - 2]) < 1e-9 * Math.abs(value) + 1e-9);
    if (even && new Set(texts).size === texts.length) return texts;
  }
  return at.map((value) => format(value));
}

// Moments as labels: the day, the hour, the second, whatever is coarsest and still tells each from the next.
export function spans(moments) {
  const dates = moments.map((text) => new Date(text));
  const day = { day: "numeric", month: "short" }, hour = { hour: "2-digit", minute: "2-digit", hourCycle: "h23" };
  const second = { ...hour, second: "2-digit" };
  const oneDay = new Set(dates.map((date) => date.toDateString())).size <= 1;
  const forms = oneDay ? [hour, second] : [day, { ...day, ...hour }, { ...day, ...second }];
  const told = forms.map((form) => dates.map((date) => date.toLocaleString([], form)));
  return told.find((texts) => new Set(texts).size === texts.length) || told.at(-1);
}

const given = (number) => number !== null && number !== undefined && Number.isFinite(number);

// chart: {title, note, x: [labels] or null, format, series: [{name, quiet, points: [{x, y, lower, upper}]}], diagonal, zero}
export function chart(spec) {
  const figure = element("figure", { className: "panel chart" });
  const svg = document.createElementNS(SPACE, "svg");
  svg.setAttribute("role", "img");
  const legend = element("ul", { className: "legend" }, ...spec.series.map((series, i) => {
    const key = document.createElementNS(SPACE, "svg");
    key.setAttribute("viewBox", "0 0 26 8");
    key.setAttribute("aria-hidden", "true");
    draw(key, "line", { x1: 1, x2: 25, y1: 4, y2: 4, class: `line s${i}`, "stroke-dasharray": DASHES[i % DASHES.length] });
    return element("li", {}, key, series.name);
  }));
  const caption = element("figcaption", {}, element("h3", { textContent: spec.title }), element("p", { textContent: spec.note || "" }));
  figure.append(caption, svg, ...(spec.series.length > 1 ? [legend] : []), numbers(spec));
  svg.setAttribute("aria-label", `${spec.title}. ${spec.note || ""} The numbers follow as a table.`);
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.round(svg.getBoundingClientRect().width);
    if (now && now !== width) paint(svg, spec, (width = now));
  }).observe(svg);
  return figure;
}

function paint(svg, spec, width) {
  svg.replaceChildren();
  svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  const points = spec.series.flatMap((series) => series.points).filter((p) => given(p.y));
  if (!points.length) {
    draw(svg, "text", { x: width / 2, y: HEIGHT / 2, "text-anchor": "middle" }, "nothing yet");
    return;
  }
  const ys = points.flatMap((p) => [p.y, p.lower, p.upper]).filter(given), xs = points.map((p) => p.x);
  let [low, high] = [Math.min(...ys), Math.max(...ys)], [first, last] = [Math.min(...xs), Math.max(...xs)];
  if (spec.diagonal) [low, first] = [0, 0], high = last = Math.max(high, last);
  if (spec.zero) low = Math.min(0, low), high = Math.max(0, high);
  if (high - low < 1e-9) high = low + (Math.abs(low) || 1) * 0.1;
  if (spec.from !== undefined) first = spec.from, last = Math.max(spec.to, first + 1);
  const margin = 0.06 * (high - low);
  if (!spec.zero && !spec.diagonal) low = Math.max(low - margin, low >= 0 ? 0 : -Infinity);
  high += margin;
  const ys_at = steps(low, high), ys_told = labels(ys_at, spec.format);
  const LEFT = 12 + 7 * Math.max(...ys_told.map((text) => text.length));
  const X = (x) => LEFT + (width - LEFT - RIGHT) * (last === first ? 0.5 : (x - first) / (last - first));
  const Y = (y) => HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (y - low) / (high - low);
  ys_at.forEach((y, i) => {
    draw(svg, "line", { x1: LEFT, x2: width - RIGHT, y1: Y(y), y2: Y(y), class: "rule" });
    draw(svg, "text", { x: LEFT - 6, y: Y(y) + 4, "text-anchor": "end" }, ys_told[i]);
  });
  const xs_at = spec.x ? spec.x.map((_, x) => x) : steps(first, last);
  const xs_told = spec.x || labels(xs_at, spec.formatX || spec.format);
  const marks = xs_at.map((x, i) => [x, xs_told[i]]), widest = Math.max(...xs_told.map((text) => text.length));
  const most = Math.max(2, Math.floor(width / (7 * widest + 24))), every = Math.ceil((marks.length - 1) / (most - 1)) || 1;
  marks.filter((_, i) => i % every === 0).forEach(([x, text]) => {
    const anchor = X(x) < LEFT + 20 ? "start" : X(x) > width - 40 ? "end" : "middle";
    draw(svg, "text", { x: X(x), y: HEIGHT - 8, "text-anchor": anchor }, text);
  });
  if (spec.diagonal) draw(svg, "line", { x1: X(0), y1: Y(0), x2: X(last), y2: Y(last), class: "rule strong" });
  spec.series.forEach((series, i) => {
    const mine = series.points.filter((p) => given(p.y));
    const sure = mine.filter((p) => given(p.lower) && given(p.upper));
    if (sure.length > 1 && !series.quiet) {
      const path = [...sure.map((p) => `${X(p.x)},${Y(p.upper)}`), ...sure.reverse().map((p) => `${X(p.x)},${Y(p.lower)}`)];
      draw(svg, "polygon", { points: path.join(" "), class: `band s${i}` });
    }
    draw(svg, "polyline", {
      points: mine.map((p) => `${X(p.x)},${Y(p.y)}`).join(" "), class: `line s${i}${series.quiet ? " quiet" : ""}`,
      "stroke-dasharray": DASHES[i % DASHES.length],
    });
    if (!series.quiet) for (const p of mine) draw(svg, "circle", { cx: X(p.x), cy: Y(p.y), r: 3, class: `dot s${i}` });
  });
}

function numbers(spec) {
  const body = spec.series.flatMap((series) => series.points.map((p) => [
    series.name, spec.x ? spec.x[p.x] : (spec.formatX || spec.format)(p.x), given(p.y) ? spec.format(p.y) : "",
  ]));
  return element("details", {}, element("summary", { textContent: "Numbers" }),
    table(["Series", spec.xName || "", "Value"], body, spec.title));
}

export function table(head, rows, name) {
  const cell = (text) => element("td", {}, text);
  const made = element("table", {},
    element("caption", { className: "unseen", textContent: name }),
    element("thead", {}, element("tr", {}, ...head.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))));
  const box = element("div", { className: "wide", tabIndex: 0 }, made);
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", name);
  return box;
}
