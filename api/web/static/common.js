// What all pages share: elements, and calls to the service.

export const $ = (id) => document.getElementById(id);

export function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const KEY = "bart-key";  // of an administrator; kept as long as the tab

// `bart serve` prints a link with the key in its fragment, which no request carries and no history keeps.
function takeKey() {
  const given = new URLSearchParams(location.hash.slice(1)).get("key");
  if (!given) return false;
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}
takeKey();
addEventListener("hashchange", () => { if (takeKey()) location.reload(); });

export const hasKey = () => sessionStorage.getItem(KEY) !== null;

function headers() {
  return hasKey() ? { "X-API-Key": sessionStorage.getItem(KEY) } : {};
}

// An answer that is no JSON: a stream, a report, a file.
export async function fetched(path) {
  const answer = await fetch(path, { headers: headers() });
  if (!answer.ok) throw refused(answer.status, await answer.json());
  return answer;
}

function refused(status, value) {
  return new Refused(status, value.detail || value.title || `the service answered ${status}`);
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function ask(path, { body, method, keepalive } = {}) {
  const answer = await fetch(path, {
    method: method || (body === undefined ? "GET" : "POST"),
    headers: { ...headers(), ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
    keepalive,
  });
  const value = await answer.json();
  if (!answer.ok) throw refused(answer.status, value);
  return value;
}

export const percent = (p, digits = p > 0 && p < 0.1 ? 1 : 0) => `${(100 * p).toFixed(digits)} %`;

export const moment = (text) => text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short", hourCycle: "h23" }) : "";

export function tell(error) {
  $("status").textContent = error.message;
  if (error.status === 401 && $("key")) $("key").hidden = false;
}

// Pages of administrators have a form for the key, which is shown when it is asked for.
export function whenKeyGiven(begin) {
  $("key").addEventListener("submit", (event) => {
    event.preventDefault();
    sessionStorage.setItem(KEY, $("key-text").value);
    $("key").hidden = true;
    $("status").textContent = "";
    begin();
  });
}
