// The browser of listeners: history, taste, vectors, wishes, pages and why; a listener is erased here.
import { $, ask, element, moment, percent, tell, whenKeyGiven } from "./common.js";
import { chart, table } from "./chart.js";
import { cover } from "./cover.js";
import { facts, following, growing, itemLine, itemList, link, mark, number, panel, tiles } from "./browse.js";
import { sure } from "./sure.js";
import { bars, explain } from "./why.js";

const LISTS = { blocked_artists: "Blocked artists", blocked_items: "Blocked items", not_interested: "Not interested", followed_artists: "Followed artists" };
const MODES = { personalised: "personalised", no_experiments: "no experiments", not_profiled: "not profiled" };
const TOLD_AT_ONCE = 100;

const list = growing(async (after) => {
  const asked = new URLSearchParams({ prefix: $("text").value, limit: TOLD_AT_ONCE });
  if (after !== null) asked.set("after", after);
  const found = await ask(`/v1/listeners?${asked}`);
  queueMicrotask(() => mark(shown(), "listener"));
  const lines = found.listeners.map((id) => link("/operate/listeners", "listener", id, id));
  return { lines, next: found.next, count: lines.length ? "Known listeners, by id" : "No known listener's id begins so." };
});

async function doing(work, id) {
  try {
    await work();
    $("status").textContent = "";
  } catch (error) {
    tell(error);
  }
  await show(id);
}

function head(found) {
  const erase = element("button", { type: "button", id: "erase", textContent: "Erase" });
  erase.addEventListener("click", async () => {
    const why = await sure(`${found.user_id} is erased for good: states, sessions, wishes, pages, feedback and exported rows.`);
    if (why === null) return;
    try {
      receipt(await ask(`/v1/listeners/${encodeURIComponent(found.user_id)}`, { method: "DELETE" }));
      list();
    } catch (error) {
      tell(error);
    }
  });
  return element("div", { className: "subject" }, element("div", {}, element("h2", { id: "one-title", textContent: found.user_id }),
    element("span", { textContent: found.known ? `Known${found.made_at ? ` since ${moment(found.made_at)}` : ""}` : "Has no session yet" })),
    element("a", { href: `/?user=${encodeURIComponent(found.user_id)}`, className: "button", textContent: "A page now" }), erase);
}

function receipt(found) {
  $("one").replaceChildren(panel("Erased", element("p", { textContent: "Keep the receipt: it proves what was removed." }),
    facts(["user_id", "erased_at", "states", "sessions", "pages", "events", "quarantined", "exported", "files", "preferences", "compacted", "code"]
      .map((name) => [name.replace("_", " "), String(found[name])])),
    element("p", { textContent: found.held_by.bundles.length ? `Bundles that learnt from the listener: ${found.held_by.bundles.map((one) => one.bundle).join(", ")}. ` +
      Object.values(found.held_by.dropped_by).join(" ") : "No bundle learnt from the listener." })));
  document.body.dataset.erased = found.user_id;
}

function shares(rows) {
  if (!rows.length) return element("p", { textContent: "None yet." });
  return bars(rows.map((one) => ({ name: one.name, value: percent(one.share), share: one.share / rows[0].share, mark: false })));
}

function taste(found) {
  const told = found.taste, hours = told.hours.map((y, x) => ({ x, y }));
  return element("section", {}, element("h3", { textContent: "Taste" }),
    element("p", { textContent: told.items ? `Plays count half after ${told.half_life_d} days; the last one was ${moment(told.latest_at)}.` : "Nothing has been heard yet." }),
    tiles([["Plays", number(told.plays), `of ${number(told.items)} items`],
      ["Diversity", told.spread === null ? "–" : told.spread.toFixed(2), "0 one sound, 1 all over"],
      ["Exploration", found.exploration_success === null ? "–" : percent(found.exploration_success), "of explored cards were streamed"]]),
    element("div", { className: "grid" }, panel("Genres", shares(told.genres)), panel("Artists", shares(told.artists))),
    chart({ title: "Hours", note: "Items by the local hour in which they were played last.", x: hours.map((one) => String(one.x).padStart(2, "0")), xName: "Hour",
      format: (n, digits) => n.toFixed(digits ?? 0), zero: true, series: [{ name: "items", points: hours }] }));
}

function strip(vector) {
  const most = Math.max(...vector.map(Math.abs), 1e-9);
  const box = element("div", { className: "strip" });
  box.append(...vector.map((value) => {
    const one = element("i", { className: value < 0 ? "minus" : "" });
    one.style.opacity = 0.08 + 0.92 * Math.abs(value) / most;
    return one;
  }));
  box.setAttribute("role", "img");
  box.setAttribute("aria-label", `${vector.length} numbers, the largest ${most.toFixed(2)}`);
  return box;
}

function vectors(found) {
  const similarity = (one) => `similarity ${one.cosine.toFixed(2)}`;
  return element("section", {}, element("h3", { textContent: "Vectors" }),
    element("div", { className: "grid" },
      panel("Now", strip(found.vector), element("p", { textContent: "The items that are closest to it:" }), itemList(found.near.slice(0, 6), similarity)),
      ...found.interests.slice(0, 6).map((one, i) => panel(`Interest ${i + 1}: ${percent(one.share)} of the plays`, itemList(one.near, similarity)))));
}

function history(found) {
  const row = (one) => [itemLine(one), one.plays === null ? "–" : number(one.plays), one.skips === null ? "–" : number(one.skips), moment(one.last_at) || "–"];
  const box = element("section", {}, element("h3", { textContent: "History" }));
  if (!found.history.length) {
    box.append(element("p", { textContent: "Nothing is kept." }));
    return box;
  }
  const made = table(["Item", "Plays", "Skips", "Played last"], found.history.map(row), "History"), body = made.querySelector("tbody");
  const more = element("button", { type: "button", id: "more-history", textContent: "More" });
  let told = found.history.length;
  const left = () => { more.hidden = told >= found.history_count; };
  more.addEventListener("click", async () => {
    try {
      const next = await ask(`/v1/listeners/${encodeURIComponent(found.user_id)}/profile?after=${told}`);
      body.append(...next.history.map((one) => element("tr", {}, ...row(one).map((cell) => element("td", {}, cell)))));
      told += next.history.length;
      left();
    } catch (error) {
      tell(error);
    }
  });
  left();
  box.append(element("div", { className: "panel history" }, element("p", { textContent: `${number(found.history_count)} items, the last played first.` }), made, more));
  return box;
}

function wishes(found) {
  const kept = found.preferences, path = `/v1/listeners/${encodeURIComponent(found.user_id)}/preferences`;
  const put = (body) => doing(() => ask(path, { method: "PUT", body }), found.user_id);
  const mode = element("select", { id: "mode" }, ...Object.entries(MODES).map(([value, textContent]) => element("option", { value, textContent, selected: value === kept.mode })));
  mode.addEventListener("change", async () => {
    const gone = mode.value === "not_profiled" ? " Who is not profiled is erased but for these wishes." : "";
    if (await sure(`${found.user_id}: ${MODES[mode.value]}.${gone}`) === null) mode.value = kept.mode;
    else await put({ mode: mode.value });
  });
  const explicit = element("input", { type: "checkbox", id: "explicit", checked: kept.explicit });
  explicit.addEventListener("change", () => put({ explicit: explicit.checked }));
  const lists = Object.entries(LISTS).map(([name, title]) => {
    const box = element("input", { maxLength: 256, autocomplete: "off" }), form = element("form", { className: "add" }, element("label", {}, title, box),
      element("button", { type: "submit", textContent: "Add", ariaLabel: `Add to ${title.toLowerCase()}` }));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (box.value) put({ [name]: [...kept[name], box.value] });
    });
    return element("div", {}, form, element("ul", { className: "plain" }, ...kept[name].map((one) => {
      const button = element("button", { type: "button", textContent: "Remove", ariaLabel: `Remove ${one} from ${title.toLowerCase()}` });
      button.addEventListener("click", () => put({ [name]: kept[name].filter((other) => other !== one) }));
      return element("li", {}, element("span", { textContent: one }), button);
    })));
  });
  return element("section", {}, element("h3", { textContent: "What the listener asks for" }), element("div", { className: "panel wishes" },
    element("div", { className: "first" }, element("label", {}, "Mode", mode), element("label", { className: "check" }, explicit, "Explicit items may be shown")), ...lists));
}

async function why(request_id, row, card) {
  try {
    const found = await ask(`/v1/decisions/${request_id}/why?row=${row}&column=${card.column}`);
    $("reasons-text").replaceChildren(...explain(found, { item_id: card.item_id, artists: [], ...card }));
    $("reasons").showModal();
    $("reasons").scrollTop = 0;
  } catch (error) {
    tell(error);
  }
}

async function open(request_id, box) {
  try {
    const found = await ask(`/v1/decisions/${request_id}`);
    box.replaceChildren(...found.page.map((shelf, row) => element("div", { className: "shelf" }, element("h4", { textContent: shelf.title }),
      element("ul", { className: "lines" }, ...shelf.cards.map((card) => {
        const button = element("button", { type: "button" }, cover({ item_id: card.item_id, artists: card.artists || [], image: card.image }),
          element("span", {}, element("b", { textContent: card.title }), element("span", { textContent: outcome(card) })));
        button.setAttribute("aria-label", `Why ${card.title}?`);
        button.addEventListener("click", () => why(request_id, row, card));
        return element("li", {}, button);
      })))));
  } catch (error) {
    tell(error);
  }
}

function outcome(card) {
  const heard = card.feedback, chance = `propensity ${percent(card.propensity)}`;
  if (!heard || !heard.seen) return `not seen · ${chance}`;
  return [heard.listened_s ? `listened ${Math.round(heard.listened_s)} s` : "seen", heard.saved ? "saved" : "", chance].filter(Boolean).join(" · ");
}

function pages(found) {
  const box = element("section", {}, element("h3", { textContent: "Latest pages, and why" }));
  if (!found.pages.length) box.append(element("p", { textContent: "No page is in the log." }));
  box.append(...found.pages.map((one) => {
    const inside = element("div", { className: "decided" });
    const said = [`${one.cards} cards`, `${one.seen} seen`, `reward ${one.reward.toFixed(1)}`, one.device, one.arm && `arm ${one.arm}`, one.forced && "forced"];
    const made = element("details", { className: "panel page" }, element("summary", {}, element("b", { textContent: moment(one.decided_at) }),
      element("span", { textContent: said.filter(Boolean).join(" · ") })), inside);
    made.addEventListener("toggle", () => { if (made.open && !inside.childElementCount) open(one.request_id, inside); });
    return made;
  }));
  return box;
}

async function show(id) {
  mark(id, "listener");
  if (id === null) return;
  let found;
  try {
    found = await ask(`/v1/listeners/${encodeURIComponent(id)}/profile`);
    $("status").textContent = "";
  } catch (error) {
    $("one").replaceChildren(element("p", { className: "empty", textContent: error.message }));
    return tell(error);
  }
  if (shown() !== id) return;  // another one was asked for meanwhile
  $("one").setAttribute("aria-labelledby", "one-title");
  $("one").replaceChildren(head(found), taste(found), pages(found), wishes(found), vectors(found), history(found));
  document.body.dataset.shown = id;
}

const { go, shown } = following("listener", show);
$("ask").addEventListener("submit", (event) => { event.preventDefault(); if ($("text").value) go($("text").value); });

async function begin() {
  await Promise.all([list(), show(shown())]);
  document.body.dataset.ready = "yes";
}
whenKeyGiven(begin);
begin();
