// The home page: asks for a page, shows it, reports what was seen and heard.
import { cover } from "./cover.js";
import { explain } from "./why.js";

const $ = (id) => document.getElementById(id);
const SEEN_AFTER_MS = 400;  // reports of cards that came into view are sent together
const state = {
  page: null, reported: 0, seen: new Set(), waiting: [], timer: 0, playing: null, session: null, told: null,
};

async function ask(path, body) {
  const answer = await fetch(path, body && {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), keepalive: true,
  });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.detail || value.title || `the service answered ${answer.status}`);
  return value;
}

function tell(error) {
  $("status").textContent = error.message;
}

function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

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
  return ask("/v1/feedback", { request_id: state.page.request_id, events }).catch(tell);
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

function card(facts, row, column) {
  const button = element("button", { className: "card", type: "button" },
    cover(facts),
    element("b", { textContent: facts.title }),
    element("span", { textContent: facts.artists.join(", ") || facts.type }));
  Object.assign(button.dataset, { row, column });
  button.addEventListener("click", () => play(facts, row, column, button));
  watcher.observe(button);
  return element("li", {}, button);
}

function show(page) {
  watcher.disconnect();
  state.page = page;
  state.seen = new Set();
  $("shelves").replaceChildren(...page.shelves.map((shelf, row) => {
    const title = element("h2", { id: `shelf-${row}`, textContent: shelf.title });
    const list = element("ul", { className: "row" }, ...shelf.cards.map((facts, column) => card(facts, row, column)));
    list.setAttribute("aria-labelledby", title.id);
    return element("section", {},
      element("div", { className: "head" }, title, element("p", { textContent: shelf.explanation })), list);
  }));
  $("shelves").setAttribute("aria-busy", "false");
  $("status").textContent = page.shelves.length ? "" : "Nothing to show yet: no shelf found a card for this listener.";
  report({ displayed: true });
}

function greeting(hour) {
  return hour < 5 ? "Good night" : hour < 12 ? "Good morning" : hour < 18 ? "Good afternoon" : "Good evening";
}

async function load(onboarding) {
  stop(false);
  await Promise.all([send(), state.told]);
  const user_id = $("listener").value;
  if (state.session?.user_id !== user_id) state.session = { user_id, session_id: `page-${Date.now()}`, plays: [] };
  $("shelves").setAttribute("aria-busy", "true");
  try {
    const tz = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
    show(await ask("/v1/home", { user_id, device: $("device").value, tz, onboarding: onboarding ?? null }));
    $("greeting").textContent = greeting(new Date().getHours());
  } catch (error) {
    tell(error);
  }
}

// ------------------------------------------------------------------------------------------------------ the player

function play(facts, row, column, button) {
  stop(true);
  state.playing = { facts, row, column, button, since: performance.now(), saved: false, clock: setInterval(tick, 500) };
  button.setAttribute("aria-pressed", "true");
  $("playing").textContent = facts.title;
  $("by").textContent = facts.artists.join(", ");
  $("cover").replaceChildren(cover(facts));
  $("save").setAttribute("aria-pressed", "false");
  $("player").hidden = false;
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
  state.told = ask("/v1/sessions", { ...state.session, plays, device, final: false }).catch(tell);
}

$("skip").addEventListener("click", () => stop(true));
$("stop").addEventListener("click", () => stop(false));
$("save").addEventListener("click", () => {
  if (!state.playing) return;
  state.playing.saved = !state.playing.saved;
  $("save").setAttribute("aria-pressed", String(state.playing.saved));
});
$("why").addEventListener("click", async () => {
  if (!state.playing) return;
  const { row, column } = state.playing;
  try {
    await send();  // what is shown includes what was just reported
    const decision = await ask(`/v1/decisions/${state.page.request_id}`);
    $("reasons-text").replaceChildren(...explain(decision, row, column, element));
    $("reasons").showModal();
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

$("new").addEventListener("click", async () => {
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
});
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
  let known = [];
  try {
    known = (await ask("/v1/listeners")).listeners;
  } catch { /* only administrators are told who there is */ }
  $("listeners").append(...known.map((value) => element("option", { value })));
  $("listener").value = new URLSearchParams(location.search).get("user") || known[0] || "new listener";
  await load();
}
begin();
