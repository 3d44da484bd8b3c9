// "Why this?": one card of a decision in words and bars, and what else could have stood there.
import { element, percent } from "./common.js";
import { cover } from "./cover.js";

const GROUPS = 7;  // told by name
const SMALLEST = 0.005;  // logits below it are not told

function ordinal(rank) {
  return rank === 0 ? "first" : `number ${rank + 1}`;
}

function how(found) {
  if (found.pinned) return "fixed here by a rule";
  if (found.arm === "wish:not_profiled") return "by popularity and context alone: nothing is kept of this listener, as they wished";
  if (found.arm === "wish:no_experiments") return "the best that was left: nothing is tried out on this listener, as they wished";
  if (found.explored === undefined) return "by a policy that this page cannot retrace";
  return found.explored ? "explored: drawn by chance, so that the service keeps learning"
    : "exploited: the best that was left for this place";
}

function bar(share, sign) {
  const box = element("span", { className: `bar ${sign}` });
  const fill = element("i");
  fill.style.width = `${100 * share}%`;
  box.append(fill);
  box.setAttribute("aria-hidden", "true");
  return box;
}

// rows: [{name, value, share of the widest, sign, mark, model}]
export function bars(rows) {
  return element("ul", { className: rows[0].model ? "bars scored" : "bars" }, ...rows.map(({ name, value, share, sign = "", mark, model }) =>
    element("li", { className: mark ? "mark" : "" },
      element("span", { className: "name", textContent: name }), bar(share, sign), element("span", { textContent: value }),
      ...(model === undefined ? [] : [element("span", { textContent: model })]))));
}

function contributions(found) {
  const parts = Object.entries(found.contributions ?? {}).filter(([, value]) => Math.abs(value) >= SMALLEST);
  if (!parts.length) return [];
  parts.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const most = Math.abs(parts[0][1]), rest = parts.splice(GROUPS);
  if (rest.length) parts.push([`${rest.length} others together`, rest.reduce((sum, [, value]) => sum + value, 0)]);
  return [
    element("h3", { textContent: "What speaks for it, and against" }),
    bars(parts.map(([name, value]) => ({
      name, value: `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`, share: Math.abs(value) / most,
      sign: value > 0 ? "plus" : "minus",
    }))),
    element("p", { className: "fine", textContent: "Logits by group of features; their sum is the model's probability." }),
  ];
}

function alternatives(found) {
  if (!found.alternatives) return [];
  const rows = found.alternatives.map((one) => ({
    name: one.stands_here ? `${one.title} (stands here)` : one.title, model: `score ${percent(one.raw_score)}`, value: percent(one.propensity),
    share: one.propensity, mark: one.stands_here,
  }));
  if (found.others) {
    rows.push({ model: "", name: `${found.others} others together`, value: percent(found.others_propensity), share: found.others_propensity });
  }
  return [
    element("h3", { textContent: "What else could have stood here" }),
    bars(rows),
    element("p", { className: "fine", textContent: `The probability of each of the ${found.left} cards left for this place; ` +
      (found.policy === "swaps" ? `two neighbours are exchanged here with a chance of ${percent(found.epsilon)}.`
        : `${percent(found.epsilon)} of the pages explore here.`) }),
  ];
}

function neighbours(found) {
  if (!found.neighbours.length) return [];
  return [
    element("h3", { textContent: "Its neighbours" }),
    element("ul", { className: "neighbours" }, ...found.neighbours.map((one) =>
      element("li", {}, cover(one), element("span", {}, element("b", { textContent: one.title }),
        element("span", { textContent: `${one.artists.join(", ")} · similarity ${one.cosine.toFixed(2)}` }))))),
  ];
}

export function explain(found, facts) {
  const greedy = found.alternatives?.reduce((a, b) => (b.propensity > a.propensity ? b : a));
  const rows = [
    ["Shelf", found.shelf.title],
    found.model_id === "caller" ? ["Score by the caller", `${found.raw_score}`]
      : [found.model_id === "popularity" ? "Score by popularity" : "Probability that you stream it", percent(found.raw_score)],
    ["Rank by the model", `${ordinal(found.rank)} of ${found.candidates_on_shelf} on its shelf, ` +
      `${ordinal(found.rank_on_page)} of ${found.candidates_on_page} in all`],
    ["How it came here", how(found)],
    ["Propensity, in this place", percent(found.propensity)],
  ];
  if (found.explored && greedy) rows.push(["The model alone would have shown", greedy.title]);
  if (found.holds) rows.push(["Holds", `${found.holds.members}: ${found.holds.titles.join(", ")}${found.holds.members > found.holds.titles.length ? ", …" : ""}`]);
  if (found.stands_in) rows.push(["Stands in", found.stands_in.join(", ")]);
  if (found.arm) rows.push(["Arm", found.arm]);
  if (found.forced) rows.push(["Recorded as", "forced: never learnt from"]);
  return [
    element("div", { className: "subject" }, cover(facts),
      element("div", {}, element("b", { textContent: found.title }), element("span", { textContent: facts.artists.join(", ") }))),
    element("dl", {}, ...rows.flatMap(([name, value]) =>
      [element("dt", { textContent: name }), element("dd", { textContent: value })])),
    ...contributions(found),
    ...alternatives(found),
    ...neighbours(found),
  ];
}
