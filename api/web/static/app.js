// The home page: asks for a page, shows it, reports what was seen and heard.
"use strict";

const $ = (id) => document.getElementById(id);
const state = { page: null, reported: 0, seen: new Set(), playing: null };
const TICKS_A_SECOND = 1;

async function ask(path, body) {
  const answer = await fetch(path, body && {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  });
  const value = await answer.json();
  if (!answer.ok) throw new Error(value.detail || value.title || `the service answered ${answer.status}`);
  return value;
}

function report(events) {
  if (!state.page) return Promise.resolve();
  const named = events.map((event) => ({
    ...event, event_id: `${Date.now()}-${state.reported++}`, occurred_at: new Date().toISOString(),
  }));
  return ask("/v1/feedback", { request_id: state.page.request_id, events: named })
    .catch((error) => { $("status").textContent = error.message; });
}

// ------------------------------------------------------------------ covers: the same item always looks the same

function numbers(text) {
  let h = 2166136261;
  for (const letter of text) h = Math.imul(h ^ letter.codePointAt(0), 16777619);
  return () => {
    h = Math.imul(h ^ (h >>> 15), 2246822519);
    h = Math.imul(h ^ (h >>> 13), 3266489917);
    return ((h ^= h >>> 16) >>> 0) / 4294967296;
  };
}

function cover(card) {
  const next = numbers(card.item_id);
  const family = numbers((card.artists && card.artists[0]) || card.item_id);  // an artist keeps one colour
  const hue = Math.floor(family() * 360);
  const other = (hue + 25 + Math.floor(next() * 70)) % 360;
  const ns = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(ns, "svg");
  svg.setAttribute("viewBox", "0 0 100 100");
  svg.setAttribute("aria-hidden", "true");
  const add = (name, attributes) => {
    const element = document.createElementNS(ns, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    svg.append(element);
  };
  add("rect", { width: 100, height: 100, fill: `hsl(${hue} 45% 38%)` });
  const kind = Math.floor(next() * 4);
  for (let i = 0; i < 5; i++) {
    const fill = `hsl(${i % 2 ? hue : other} ${50 + next() * 25}% ${45 + next() * 32}%)`;
    const opacity = 0.55 + next() * 0.4;
    if (kind === 0) add("circle", { cx: next() * 100, cy: next() * 100, r: 10 + next() * 34, fill, opacity });
    else if (kind === 1) add("rect", { x: -10, y: 8 + i * 19, width: 20 + next() * 100, height: 12, rx: 6, fill, opacity });
    else if (kind === 2) {
      const x = next() * 100, y = next() * 100, s = 25 + next() * 45;
      add("polygon", { points: `${x},${y - s} ${x + s},${y + s} ${x - s},${y + s}`, fill, opacity });
    } else add("circle", { cx: 50, cy: 50, r: 46 - i * 9, fill: "none", stroke: fill, "stroke-width": 4 + next() * 4, opacity });
  }
  return svg;
}

// ---------------------------------------------------------------------------------------------------- the page

const watcher = new IntersectionObserver((entries) => {
  const events = [];
  for (const entry of entries) {
    const card = entry.target;
    const place = `${card.dataset.row}:${card.dataset.column}`;
    if (!entry.isIntersecting || state.seen.has(place)) continue;
    state.seen.add(place);
    events.push({ row: +card.dataset.row, column: +card.dataset.column, seen: true });
  }
  if (events.length) report(events);
}, { threshold: 0.6 });

function show(page) {
  watcher.disconnect();
  state.page = page;
  state.seen = new Set();
  const main = $("shelves");
  main.replaceChildren(...page.shelves.map((shelf, row) => {
    const section = document.createElement("section");
    const head = document.createElement("div");
    head.className = "head";
    const title = document.createElement("h2");
    title.id = `shelf-${row}`;
    title.textContent = shelf.title;
    const why = document.createElement("p");
    why.textContent = shelf.explanation;
    head.append(title, why);
    const list = document.createElement("ul");
    list.className = "row";
    list.setAttribute("aria-labelledby", title.id);
    list.tabIndex = 0;
    list.append(...shelf.cards.map((card, column) => {
      const entry = document.createElement("li");
      const button = document.createElement("button");
      button.className = "card";
      button.type = "button";
      button.dataset.row = row;
      button.dataset.column = column;
      const name = document.createElement("b");
      name.textContent = card.title;
      const by = document.createElement("span");
      by.textContent = card.artists.join(", ") || card.type;
      button.append(cover(card), name, by);
      button.addEventListener("click", () => play(card, row, column, button));
      watcher.observe(button);
      entry.append(button);
      return entry;
    }));
    section.append(head, list);
    return section;
  }));
  main.setAttribute("aria-busy", "false");
  $("status").textContent = page.shelves.length ? "" : "Nothing to show yet: no shelf found a card for this listener.";
  report([{ displayed: true }]);
}

async function load() {
  await stop(false);
  $("shelves").setAttribute("aria-busy", "true");
  try {
    show(await ask("/v1/home", {
      user_id: $("listener").value, device: $("device").value,
      tz: Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC",
    }));
    const hour = new Date().getHours();
    $("greeting").textContent = hour < 5 ? "Good night" : hour < 12 ? "Good morning" : hour < 18 ? "Good afternoon" : "Good evening";
  } catch (error) {
    $("status").textContent = error.message;
  }
}

// ---------------------------------------------------------------------------------------------------- the player

async function play(card, row, column, button) {
  await stop(true);
  state.playing = { row, column, button, heard: 0, saved: false };
  button.setAttribute("aria-pressed", "true");
  $("playing").textContent = card.title;
  $("by").textContent = card.artists.join(", ");
  $("cover").replaceChildren(cover(card));
  $("save").setAttribute("aria-pressed", "false");
  $("player").hidden = false;
  state.playing.timer = setInterval(() => {
    const seconds = state.playing.heard += 1 / TICKS_A_SECOND;
    $("heard").value = seconds;
    $("clock").textContent = `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  }, 1000 / TICKS_A_SECOND);
}

async function stop(skipped) {
  const now = state.playing;
  if (!now) return;
  state.playing = null;
  clearInterval(now.timer);
  now.button.removeAttribute("aria-pressed");
  $("player").hidden = true;
  $("heard").value = 0;
  $("clock").textContent = "0:00";
  await report([{
    row: now.row, column: now.column, seen: true, listened_s: now.heard,
    skipped: skipped && now.heard < 30, saved: now.saved || null,
  }]);
}

$("who").addEventListener("submit", (event) => { event.preventDefault(); load(); });
$("skip").addEventListener("click", () => stop(true));
$("stop").addEventListener("click", () => stop(false));
$("save").addEventListener("click", () => {
  if (!state.playing) return;
  state.playing.saved = !state.playing.saved;
  $("save").setAttribute("aria-pressed", String(state.playing.saved));
});

ask("/v1/listeners").then(({ listeners }) => {
  $("listeners").append(...listeners.map((id) => Object.assign(document.createElement("option"), { value: id })));
  const asked = new URLSearchParams(location.search).get("user");
  $("listener").value = asked || listeners[0] || "new listener";
  return load();
}).catch((error) => { $("status").textContent = error.message; });
