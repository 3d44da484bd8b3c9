// "Why this?": one card of a decision in words, and what else could have stood there.

const percent = (p) => `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`;
const LISTED = 5;

function ordinal(rank) {
  return rank === 0 ? "first" : `number ${rank + 1}`;
}

export function explain(decision, row, column, element) {
  const shelf = decision.page[row];
  const card = shelf.cards.find((one) => one.column === column);
  const among = decision.candidates.find((one) => one.cards.some((other) => other.item_id === card.item_id));
  const best = decision.greedy?.[row]?.cards[column];
  const how = card.pinned ? "fixed here by a rule"
    : card.rank === 0 ? "the one that scored best" : "drawn with some chance, so that the service keeps learning";
  const facts = [
    ["Shelf", shelf.title],
    ["Chance that you stream it", percent(card.raw_score)],
    ["Rank on its shelf", `${ordinal(card.rank)} of ${among.cards.length}`],
    ["How it came here", how],
    ["Probability of this card, here", percent(card.propensity)],
    ["Without exploration", best ? best.title : "nothing"],
  ];
  const out = [
    element("h3", { textContent: card.title }),
    element("dl", {}, ...facts.flatMap(([name, value]) =>
      [element("dt", { textContent: name }), element("dd", { textContent: value })])),
  ];
  const parts = Object.entries(card.contributions ?? {}).filter(([, value]) => Math.abs(value) >= 0.005);
  if (parts.length) {
    parts.sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    out.push(element("h3", { textContent: "What speaks for it, and against" }), element("ul", {},
      ...parts.map(([name, value]) => element("li", { textContent: `${name}: ${value > 0 ? "+" : ""}${value.toFixed(2)}` }))));
  }
  out.push(element("h3", { textContent: "What else could have stood on this shelf" }), element("ul", {},
    ...among.cards.filter((one) => one.item_id !== card.item_id).slice(0, LISTED)
      .map((one) => element("li", { textContent: `${one.title} (${percent(one.raw_score)})` }))));
  return out;
}
