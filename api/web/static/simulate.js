// The simulation page: asks for a small closed loop and draws its rounds as they come.
import { $, ask, element, fetched, percent, tell, whenKeyGiven } from "./common.js";
import { chart, table } from "./chart.js";

const POLICIES = {
  exploring: "learns, explores 20 %", cautious: "learns, explores 5 %", greedy: "learns, never explores",
  frozen: "first model, never learns", shuffled: "learns from shuffled rewards",
};
const CHOSEN = ["exploring", "frozen"];
const REFERENCES = { random: "any page", popularity: "popularity", true_score: "true scores" };
const AGAIN_MS = 300;
const state = { rounds: [], asked: null, seen: 0, following: false };

const streams = (y) => y.toFixed(2);

function rounds() {
  const names = state.asked.policies;
  const x = Array.from({ length: state.asked.rounds + 1 }, (_, i) => i === state.asked.rounds ? "judged" : String(i));
  const common = { x, xName: "Round", format: streams, from: 0, to: state.asked.rounds };
  const of = (name, pick) => state.rounds.map((one) => ({ x: one.number, ...pick(one.policies.find((p) => p.name === name)) }));
  const value = ({ value, lower, upper }) => ({ y: value, lower, upper });
  $("charts").replaceChildren(
    chart({ ...common, title: "Value: streams a page", note: "Of the policies as they serve, with their exploration.", zero: true, series: [
      ...names.map((name) => ({ name: POLICIES[name], points: of(name, (p) => value(p.value)) })),
      ...Object.entries(REFERENCES).map(([key, name]) => ({
        name, quiet: true, points: state.rounds.map((one) => ({ x: one.number, y: one[key].value })) })),
    ] }),
    chart({ ...common, title: "Regret: streams a page", note: "What the page by true scores would have earned beyond it.", zero: true,
      series: names.map((name) => ({ name: POLICIES[name], points: of(name, (p) => value(p.regret)) })) }),
    chart({ ...common, title: "Regret so far: streams", note: "Over all pages served.", zero: true, format: (y) => y.toFixed(0),
      series: names.map((name) => ({ name: POLICIES[name], points: of(name, (p) => ({ y: p.regret_so_far })).slice(0, state.asked.rounds) })) }));
  $("table").replaceChildren(table(["Round", "Policy", "Value", "95 %", "Without exploration", "Regret", "Explored"],
    state.rounds.flatMap((one) => one.policies.map((p) => [
      one.served ? String(one.number) : "judged", POLICIES[p.name], streams(p.value.value),
      p.value.lower === null ? "–" : `${streams(p.value.lower)} to ${streams(p.value.upper)}`, streams(p.greedy.value), streams(p.regret.value),
      p.explore_share === null ? "–" : percent(p.explore_share),
    ])), "Round by round"));
}

function take(event) {
  if (event.kind === "asked") {
    Object.assign(state, { asked: event, rounds: [] });
    for (const name of ["world", "scenario", "rounds", "pages", "seed"]) $(name).value = event[name];
    for (const box of document.querySelectorAll("#policies input")) box.checked = event.policies.includes(box.value);
    $("charts").replaceChildren();
    $("table").replaceChildren();
    $("files").replaceChildren();
  } else if (event.kind === "progress") {
    if (event.total) $("progress").value = event.done / event.total;
    else $("progress").removeAttribute("value");
    $("status").textContent = event.total ? `${event.note}: ${event.done.toLocaleString("en")} of ${event.total.toLocaleString("en")} pages` : `${event.note} …`;
  } else if (event.kind === "round") {
    state.rounds.push(event);
    $("result").hidden = false;
    rounds();
  }
}

// A link cannot send the key: the file is fetched when it is asked for.
function file(name) {
  const button = element("button", { type: "button", className: "link", textContent: name });
  button.addEventListener("click", async () => {
    try {
      const href = URL.createObjectURL(await (await fetched(`/v1/simulation/${name}`)).blob());
      element("a", { href, download: name }).click();
      URL.revokeObjectURL(href);
    } catch (error) {
      tell(error);
    }
  });
  return button;
}

function ended(event) {
  $("progress").hidden = true;
  $("start").disabled = false;
  $("cancel").disabled = true;
  document.body.dataset.ended = event.kind;
  if (event.kind === "done") {
    $("status").textContent = `Done: ${state.rounds.length - 1} rounds and the judgement.`;
    const links = event.files.map(file);
    $("files").replaceChildren("The result in full: ", ...links.flatMap((link, i) => i ? [", ", link] : [link]));
  } else if (event.kind === "cancelled") {
    $("status").textContent = "Cancelled; nothing is left of it.";
    $("result").hidden = true;
  } else if (event.kind === "failed") {
    $("status").textContent = `It failed: ${event.reason}`;
  }
}

// Server-sent events by fetch, which can send a key; a stream that ends is asked for again from where it was.
async function follow() {
  if (state.following) return;
  state.following = true;
  try {
    for (let over = false; !over;) {
      const answer = await fetched(`/v1/simulation/events?since=${state.seen}`);
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      for (let rest = "", part; !(part = await reader.read()).done;) {
        const blocks = (rest + part.value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) over = message(block) || over;
      }
      if (!over) await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
  } catch (error) {
    tell(error);
  } finally {
    state.following = false;
  }
}

function message(block) {
  const field = (name) => block.split("\n").find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2);
  const event = JSON.parse(field("data"));
  if (field("event") === "end") {
    ended(event);
    return true;
  }
  state.seen = +field("id") + 1;
  take(event);
  return false;
}

function running() {
  delete document.body.dataset.ended;
  $("start").disabled = true;
  $("cancel").disabled = false;
  $("progress").hidden = false;
  $("progress").removeAttribute("value");
}

$("policies").append(...Object.entries(POLICIES).map(([value, name]) => element("label", { className: "chip" },
  element("input", { type: "checkbox", value, checked: CHOSEN.includes(value) }), element("span", { textContent: name }))));
$("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  const policies = [...document.querySelectorAll("#policies input:checked")].map((box) => box.value);
  const number = (name) => +$(name).value;
  const body = { world: $("world").value, scenario: $("scenario").value, policies, rounds: number("rounds"), pages: number("pages"), seed: number("seed") };
  try {
    await ask("/v1/simulation", { body });
    state.seen = 0;
    running();
    follow();
  } catch (error) {
    tell(error);
  }
});
$("cancel").addEventListener("click", () => ask("/v1/simulation", { method: "DELETE" }).catch(tell));

async function begin() {
  try {
    const last = await ask("/v1/simulation");
    if (last.running) running();
    else if (last.events.length) await follow(); // what is over is told to its end before another can be begun
    if (last.running) follow();
    document.body.dataset.ready = "yes";
  } catch (error) {
    tell(error);
  }
}
whenKeyGiven(begin);
begin();
