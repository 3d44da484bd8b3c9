// The browser of items: found by words, told with neighbours, shelves and exposure; taken down and put back.
import { $, ask, element, moment, percent, tell, whenKeyGiven } from "./common.js";
import { chart, spans, table } from "./chart.js";
import { cover } from "./cover.js";
import { KINDS, facts, following, growing, itemLine, itemList, mark, number, panel, tiles } from "./browse.js";
import { sure } from "./sure.js";

const share = (p) => p === null ? "–" : percent(p);
const duration = (s) => s === null ? "" : `${Math.floor(s / 60)}:${String(Math.round(s % 60)).padStart(2, "0")}`;

const list = growing(async (after) => {
  const asked = new URLSearchParams({ q: $("text").value, type: $("type").value });
  if (after !== null) asked.set("after", after);
  const found = await ask(`/v1/items?${asked}`);
  const lines = found.items.map((one) => itemLine(one));
  queueMicrotask(() => mark(shown(), "item"));
  return { lines, next: found.next, count: `${number(found.found)} ${found.found === 1 ? "item" : "items"}, the most popular first` };
});

function head(found) {
  const button = element("button", { type: "button", id: "takedown", textContent: found.taken_down ? "Put back" : "Take down" });
  button.addEventListener("click", async () => {
    const why = await sure(found.taken_down ? `${found.title} may stand on pages again.` : `${found.title} stands on no page from then on.`);
    if (why === null) return;
    try {
      const path = found.taken_down ? "takedowns" : "items";
      await ask(`/v1/${path}/${encodeURIComponent(found.item_id)}`, { method: "DELETE" });
      $("status").textContent = "";
    } catch (error) {
      tell(error);
    }
    await show(found.item_id);
    list();
    $("takedown").focus();
  });
  const said = [KINDS[found.type], found.artists.join(", ")].filter(Boolean).join(" · ");
  return element("div", { className: "subject" }, cover(found), element("div", {}, element("h2", { id: "one-title", textContent: found.title }),
    element("span", { textContent: said }), element("code", { textContent: found.item_id }),
    ...(found.taken_down ? [element("em", { textContent: "taken down" })] : [])), button);
}

function exposure(found) {
  const told = found.exposure, x = spans(told.periods.map((one) => one.since));
  const line = (name, value, quiet) => ({ name, quiet, points: told.periods.map((one, i) => ({ x: i, y: value(one) })) });
  const count = (n, digits) => n.toFixed(digits ?? 0);
  return element("section", {},
    element("h3", { textContent: "Exposure" }),
    element("p", { textContent: told.pages ? `On the latest ${number(told.pages)} pages, ${moment(told.since)} to ${moment(told.until)}.` : "No page has been decided yet." }),
    tiles([["Shown", number(told.shown), `${share(told.pages ? told.shown / told.pages : null)} of the pages`],
      ["Seen", number(told.seen), "came into view"], ["Reward", told.reward.toFixed(1), "of all seen"],
      ["Reward a seen card", share(told.reward_rate), ""]]),
    element("div", { className: "grid" },
      chart({ title: "Shown and seen", note: "Cards on as many pages each.", x, xName: "Since", format: count, zero: true,
        series: [line("shown", (one) => one.shown), line("seen", (one) => one.seen, true)] }),
      chart({ title: "Reward a seen card", note: "Where nothing was seen, there is none.", x, xName: "Since", format: percent, zero: true,
        series: [line("reward", (one) => one.reward_rate)] })),
    ...(told.shelves.length ? [panel("By the rule of its shelf", table(["Rule", "Shown", "Seen", "Reward", "Reward a seen card"], told.shelves.map((one) =>
      [one.rule, number(one.shown), number(one.seen), one.reward.toFixed(1), share(one.reward_rate)]), "By shelf"))] : []));
}

async function show(id) {
  mark(id, "item");
  if (id === null) return;
  let found;
  try {
    found = await ask(`/v1/items/${encodeURIComponent(id)}`);
    $("status").textContent = "";
  } catch (error) {
    $("one").replaceChildren(element("p", { className: "empty", textContent: error.message }));
    return tell(error);
  }
  if (shown() !== id) return;  // another one was asked for meanwhile
  const standing = found.standing.map((one) => `${one.list}: ${one.place} of ${one.of}`).join("; ");
  const held = found.members_count > found.members.length ? `The first ${found.members.length} of ${number(found.members_count)}.` : "";
  $("one").setAttribute("aria-labelledby", "one-title");
  $("one").replaceChildren(head(found),
    panel("Facts", facts([["Plays by all", found.plays === null ? "not counted in this batch" : number(found.plays)], ["Popularity", found.popularity.toFixed(3)],
      ["Genres", found.genres.join(", ")], ["Released", found.released_at], ["Duration", duration(found.duration_s)],
      ["Explicit", found.explicit ? "yes" : "no"], ["Countries", found.countries.join(", ") || "everywhere"],
      ["On lists of shelves", standing], ["Vector", found.has_vector ? "" : "none: it is not in the index"],
      ["Artist's items", found.artists.length ? element("a", { href: `/operate/items?q=${encodeURIComponent(found.artists[0])}`, textContent: found.artists[0] }) : ""]])),
    exposure(found),
    element("div", { className: "grid" },
      panel("Its neighbours", found.neighbours.length ? itemList(found.neighbours, (one) => `similarity ${one.cosine.toFixed(2)}`)
        : element("p", { textContent: "None: it has no vector." })),
      ...(found.members_count ? [panel("It holds", element("p", { textContent: held }), itemList(found.members))] : []),
      ...(found.holders.length ? [panel("It stands in", itemList(found.holders))] : [])));
  document.body.dataset.shown = id;
}

const { shown } = following("item", show);
$("ask").addEventListener("submit", (event) => { event.preventDefault(); list(); });

async function begin() {
  await Promise.all([list(), show(shown())]);
  document.body.dataset.ready = "yes";
}
$("text").value = new URLSearchParams(location.search).get("q") || "";
whenKeyGiven(begin);
begin();
