// The home page: asks for a page, shows it, reports what was seen and heard.
import { $, ask, element, hasKey, tell } from "./common.js";
import { cover } from "./cover.js";
import { explain } from "./why.js";

const SEEN_AFTER_MS = 400;  // reports of cards that came into view are sent together
const SHOWN = +document.body.dataset.columns;  // cards of a row until "more" is asked for
const state = {
  page: null, reported: 0, seen: new Set(), waiting: [], timer: 0, playing: null, session: null, told: null, played: 0,
};

// ------------------------------------------------------------------------------------------------- what is reported

function report(event) {
  if (!state.page) return;
  state.waiting.push({ ...event, event_id: `${Date.now()}-${state.reported++}`, occurred_at: new Date().toISOString() });
  clearTimeout(state.timer);
  state.timer = setTimeout(send, SEEN_AFTER_MS);
}

function send() {
  clearTimeout(state.timer);
  if (!state.waiting.length) return Promise.resolve();
  const events = state.waiting.splice(0);
  return ask("/v1/feedback", { body: { request_id: state.page.request_id, events }, keepalive: true }).catch(tell);
}

const watcher = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const place = `${target.dataset.row}:${target.dataset.column}`;
    if (!isIntersecting || state.seen.has(place)) continue;
    state.seen.add(place);
    report({ row: +target.dataset.row, column: +target.dataset.column, seen: true });
  }
}, { threshold: 0.6 });

// -------------------------------------------------------------------------------------------------------- the page

const KINDS = { album: "Album", playlist: "Playlist", artist: "Artist", show: "Show", episode: "Episode", article: "Article" };

// What stands below a title: what it is, unless a track, and by whom; then what it stands in, or how much it holds.
function lines(facts) {
  const kind = KINDS[facts.type], by = facts.type === "artist" ? "" : facts.artists.join(", ");
  const holds = facts.members ? `${facts.members} ${facts.type === "show" ? "episodes" : "tracks"}` : "";
  return [[kind, by].filter(Boolean).join(" · ") || facts.type, facts.show || facts.album || holds].filter(Boolean);
}

function card(facts, row, column) {
  const button = element("button", { className: "card", type: "button" },
    cover(facts),
    element("b", { textContent: facts.title }),
    ...lines(facts).map((text) => element("span", { textContent: text })));
  Object.assign(button.dataset, { row, column, type: facts.type });
  button.addEventListener("click", () => play(facts, row, column, button));
  watcher.observe(button);
  return element("li", { hidden: column >= SHOWN }, button);
}

// What "more" reveals was decided with the rest of the page: every card has its propensity.
function more(title, list) {
  const button = element("button", { className: "more", type: "button" },
    element("span", { textContent: "More", ariaHidden: "true" }));
  button.setAttribute("aria-label", `More of ${title}`);
  const item = element("li", {}, button);
  button.addEventListener("click", () => {
    const held = [...list.querySelectorAll("li[hidden]")];
    for (const one of held) one.hidden = false;
    item.remove();
    held[0].firstChild.focus();
    arrows(list);
  });
  return item;
}

function arrow(list, text, way) {
  const button = element("button", { className: "arrow", type: "button", tabIndex: -1, textContent: text });
  button.setAttribute("aria-hidden", "true");  // for pointers; keys and fingers move the row themselves
  button.addEventListener("click", () => list.scrollBy({ left: way * 0.8 * list.clientWidth, behavior: "smooth" }));
  return button;
}

function arrows(list) {
  const [back, on] = list.previousSibling.querySelectorAll(".arrow");
  back.disabled = list.scrollLeft < 4;
  on.disabled = list.scrollLeft > list.scrollWidth - list.clientWidth - 4;
}

function section(shelf, row) {
  const title = element("h2", { id: `shelf-${row}`, textContent: shelf.title });
  const list = element("ul", { className: "row" }, ...shelf.cards.map((facts, column) => card(facts, row, column)));
  if (shelf.cards.length > SHOWN) list.append(more(shelf.title, list));
  list.setAttribute("aria-labelledby", title.id);
  list.addEventListener("scroll", () => arrows(list), { passive: true });
  const words = element("div", {}, title, element("p", { textContent: shelf.explanation }));
  const head = element("div", { className: "head" }, words, arrow(list, "‹", -1), arrow(list, "›", 1));
  return element("section", {}, head, list);
}

function show(page) {
  watcher.disconnect();
  state.page = page;
  state.seen = new Set();
  $("shelves").replaceChildren(...page.shelves.map(section));
  for (const list of document.querySelectorAll(".row")) arrows(list);
  $("shelves").setAttribute("aria-busy", "false");
  $("status").textContent = page.shelves.length ? "" : "Nothing to show yet: no shelf found a card for this listener.";
  report({ displayed: true });
}

function greeting(hour) {
  return hour < 5 ? "Good night" : hour < 12 ? "Good morning" : hour < 18 ? "Good afternoon" : "Good evening";
}

// The latest moment that has the chosen hour and weekday; null for now.
function moment() {
  const hour = $("hour").value, weekday = $("weekday").value;
  if (hour === "" && weekday === "") return null;
  const now = new Date(), at = new Date(now);
  if (hour !== "") at.setHours(+hour, 30, 0, 0);
  if (weekday !== "") at.setDate(at.getDate() - (at.getDay() - +weekday + 7) % 7);
  if (at > now) at.setDate(at.getDate() - (weekday === "" ? 1 : 7));
  return at;
}

async function load(onboarding) {
  stop(false);
  $("welcome").hidden = true;
  await Promise.all([send(), state.told]);
  const user_id = $("listener").value;
  if (state.session?.user_id !== user_id) state.session = { user_id, session_id: `page-${Date.now()}`, plays: [] };
  $("shelves").setAttribute("aria-busy", "true");
  try {
    const tz = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
    const at = moment();
    show(await ask("/v1/home", { body: {
      user_id, device: $("device").value, surface: $("surface").value, tz, at: at && at.toISOString(),
      columns: +document.body.dataset.asked, onboarding: onboarding ?? null,
    } }));
    state.played = 0;
    $("follow").hidden = true;
    $("forced").hidden = !at;
    $("greeting").textContent = greeting((at || new Date()).getHours());
  } catch (error) {
    $("shelves").setAttribute("aria-busy", "false");
    tell(error);
  }
}

// ------------------------------------------------------------------------------------------------------ the player

function play(facts, row, column, button) {
  stop(true);
  state.playing = { facts, row, column, button, since: performance.now(), saved: false, clock: setInterval(tick, 500) };
  button.setAttribute("aria-pressed", "true");
  $("playing").textContent = facts.title;
  $("by").textContent = lines(facts).join(" · ");
  $("cover").replaceChildren(cover(facts));
  $("save").setAttribute("aria-pressed", "false");
  $("player").hidden = false;
  $("follow").hidden = true;
  tick();
}

function heard() {
  return (performance.now() - state.playing.since) / 1000;
}

function tick() {
  const seconds = Math.floor(heard());
  $("heard").value = seconds;
  $("clock").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

function stop(skipped) {
  const now = state.playing;
  if (!now) return;
  const listened_s = Math.min(heard(), 86400);
  state.playing = null;
  clearInterval(now.clock);
  now.button.removeAttribute("aria-pressed");
  $("player").hidden = true;
  const away = skipped && listened_s < 30;
  report({ row: now.row, column: now.column, seen: true, listened_s, skipped: away, saved: now.saved || null });
  // The session so far moves the next page; nothing is committed until a client calls it final.
  state.session.plays.push({ item_id: now.facts.item_id, listened_s, skipped: away });
  const plays = state.session.plays.slice(-500);
  const device = $("device").value;
  state.told = ask("/v1/sessions", { body: { ...state.session, plays, device, final: false }, keepalive: true }).catch(tell);
  state.played += 1;
  $("heard-so-far").textContent = `${state.played === 1 ? "One play" : `${state.played} plays`} since this page was made.`;
  $("follow").hidden = false;
}

$("skip").addEventListener("click", () => stop(true));
$("stop").addEventListener("click", () => stop(false));
$("refresh").addEventListener("click", async () => {
  await load();
  scrollTo({ top: 0 });
  $("shelves").focus({ preventScroll: true });
});
$("save").addEventListener("click", () => {
  if (!state.playing) return;
  state.playing.saved = !state.playing.saved;
  $("save").setAttribute("aria-pressed", String(state.playing.saved));
});
$("why").addEventListener("click", async () => {
  if (!state.playing) return;
  const { row, column, facts } = state.playing;
  try {
    await send();  // what is shown includes what was just reported
    const found = await ask(`/v1/decisions/${state.page.request_id}/why?row=${row}&column=${column}`);
    $("reasons-text").replaceChildren(...explain(found, facts));
    $("reasons").showModal();
    $("reasons").scrollTop = 0;
  } catch (error) {
    tell(error);
  }
});
addEventListener("pagehide", () => { stop(false); send(); });

// --------------------------------------------------------------------------------------------------- who is listening

function chip(name, kind) {
  const box = element("input", { type: "checkbox", value: name, name: kind });
  return element("label", { className: "chip" }, box, element("span", { textContent: name }));
}

function picks(kind) {
  return [...document.querySelectorAll(`#picker input[name=${kind}]:checked`)].map((box) => box.value);
}

async function pick() {
  try {
    const choices = await ask("/v1/onboarding");
    for (const kind of ["genres", "artists"]) {
      $(kind).replaceChildren(...choices[kind].map((name) => chip(name, kind)));
      $(kind).parentElement.hidden = !choices[kind].length;
    }
    $("picked").disabled = true;
    $("picker").returnValue = "";
    $("picker").showModal();
  } catch (error) {
    tell(error);
  }
}
for (const id of ["new", "begin"]) $(id).addEventListener("click", pick);
$("picker").addEventListener("change", () => { $("picked").disabled = !$("picker").querySelector(":checked"); });
$("picker").addEventListener("close", () => {
  const onboarding = { genres: picks("genres"), artists: picks("artists") };
  if ($("picker").returnValue !== "ok" || !(onboarding.genres.length + onboarding.artists.length)) return;
  $("listener").value = `new-${Date.now()}`;
  load(onboarding);
});
$("who").addEventListener("submit", (event) => { event.preventDefault(); load(); });

async function begin() {
  $("device").value = matchMedia("(max-width: 40rem)").matches ? "mobile" : "desktop";
  $("hour").append(...Array.from({ length: 24 }, (_, hour) =>
    element("option", { value: hour, textContent: `${String(hour).padStart(2, "0")}:30` })));
  const named = new URLSearchParams(location.search).get("user");
  // Only administrators are told who is known.
  const listed = hasKey() ? ask("/v1/listeners").then((found) => found.listeners, () => null) : Promise.resolve(null);
  listed.then((known) => $("listeners").append(...(known || []).map((value) => element("option", { value }))));
  if (named || await listed) {
    $("listener").value = named || (await listed)[0] || "new listener";
    await load();
  } else {
    $("welcome").hidden = false;
    $("shelves").setAttribute("aria-busy", "false");
  }
}
begin();
