// What all pages share: elements, and calls to the service.

export const $ = (id) => document.getElementById(id);

export function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const KEY = "bart-key";  // of an administrator, where the service asks for one; kept as long as the tab

export function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { "X-API-Key": key } : {};
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
  if (!answer.ok) throw new Refused(answer.status, value.detail || value.title || `the service answered ${answer.status}`);
  return value;
}

export const percent = (p) => `${(100 * p).toFixed(p > 0 && p < 0.1 ? 1 : 0)} %`;

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
