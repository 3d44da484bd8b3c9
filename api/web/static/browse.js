// What the browsers of items and listeners share: a list that grows page by page, facts, tiles, and links to each other.
import { $, element, tell } from "./common.js";
import { cover } from "./cover.js";

const WAIT_MS = 150;  // until who types has stopped
export const KINDS = { track: "Track", album: "Album", playlist: "Playlist", artist: "Artist", show: "Show", episode: "Episode", article: "Article" };

export const number = (n) => n === null || n === undefined ? "–" : n.toLocaleString("en");

export function link(path, name, id, ...children) {
  return element("a", { href: `${path}?${name}=${encodeURIComponent(id)}` }, ...children);
}

// An item as one line: cover, title, what it is and by whom; note: what else is told of it here.
export function itemLine(one, note) {
  const by = [KINDS[one.type], one.artists.join(", ")].filter(Boolean).join(" · ");
  return link("/operate/items", "item", one.item_id, cover(one), element("span", {},
    element("b", { textContent: one.title }), element("span", { textContent: [by, note].filter(Boolean).join(" · ") })),
    ...(one.taken_down ? [element("em", { textContent: "taken down" })] : []));
}

export function itemList(items, note = () => "") {
  return element("ul", { className: "lines" }, ...items.map((one) => element("li", {}, itemLine(one, note(one)))));
}

export function panel(title, ...children) {
  return element("section", { className: "panel" }, element("h3", { textContent: title }), ...children);
}

export function facts(rows) {
  return element("dl", {}, ...rows.filter(([, value]) => value !== "" && value !== null && value !== undefined).flatMap(([name, value]) =>
    [element("dt", { textContent: name }), element("dd", {}, value)]));
}

export function tiles(rows) {
  return element("dl", { className: "tiles" }, ...rows.map(([name, value, note]) => element("div", {}, element("dt", { textContent: name }),
    element("dd", {}, element("strong", { textContent: value }), element("span", { textContent: note || "" })))));
}

// A list that goes on behind what it shows. ask(after) gives {lines, next, count}; an answer to an older question is dropped.
export function growing(ask) {
  let mine = 0, next = null;
  const load = async (after) => {
    const asked = ++mine;
    try {
      const found = await ask(after);
      if (asked !== mine) return;
      const lines = found.lines.map((line) => element("li", {}, line));
      if (after === null) $("found").replaceChildren(...lines); else $("found").append(...lines);
      $("count").textContent = found.count;
      next = found.next;
      $("more").hidden = next === null;
      if (after !== null && lines.length) lines[0].querySelector("a").focus();
      document.body.dataset.listed = $("text").value;
    } catch (error) {
      tell(error);
    }
  };
  let timer = 0;
  $("ask").addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(() => load(null), WAIT_MS); });
  $("more").addEventListener("click", () => load(next));
  return () => load(null);
}

// Links to what stands on the same page are followed without loading it anew. show(id): shows one, or none.
export function following(name, show) {
  const shown = () => new URLSearchParams(location.search).get(name);
  document.addEventListener("click", (event) => {
    const to = event.target.closest("a");
    if (!to || to.origin !== location.origin || to.pathname !== location.pathname || event.ctrlKey || event.metaKey || event.shiftKey) return;
    const id = new URL(to.href).searchParams.get(name);
    if (id === null) return;
    event.preventDefault();
    go(id);
  });
  addEventListener("popstate", () => show(shown()));
  const go = (id) => {
    history.pushState(null, "", `${location.pathname}?${name}=${encodeURIComponent(id)}`);
    show(id);
    $("one").focus({ preventScroll: true });
    const top = $("one").getBoundingClientRect().top;
    if (top < 0 || top > innerHeight / 2) scrollBy({ top: top - 8 });
  };
  return { go, shown };
}

// In the list, which one is told beside it.
export function mark(id, name) {
  for (const a of document.querySelectorAll("#found a")) {
    if (new URL(a.href).searchParams.get(name) === id) a.setAttribute("aria-current", "true"); else a.removeAttribute("aria-current");
  }
}
