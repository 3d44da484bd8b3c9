// The operator's page: what the latest pages earned, and the switches.
import { $, ask, element, fetched, moment, percent, tell, whenKeyGiven } from "./common.js";
import { chart, spans, table } from "./chart.js";
import { sure } from "./sure.js";

const EVERY_MS = 15000;  // the service reads its log that often at most
const SWITCHES = {
  explore: ["Exploration", "Off: every page is the greedy one, and gives no support for other choices."],
  learning: ["Learning", "Off: nothing is learnt online, no retrained bundle is taken."],
  fallback: ["Fallback", "On: popularity scores instead of the model."],
};

const UNITS = [[3600, "h", 5400], [60, "min", 90], [1, "s", 1], [0.001, "ms", 0]];
const seconds = (s, digits) => {
  if (s === null) return "–";
  const [unit, name] = UNITS.find(([, , from]) => s >= from);
  return `${(s / unit).toFixed(digits ?? (unit < 1 ? 0 : 1))} ${name}`;
};
const share = (p) => p === null ? "–" : percent(p);

// ---------------------------------------------------------------------------------------------------------- figures

function tile(name, value, note) {
  return element("div", {}, element("dt", { textContent: name }), element("dd", {}, element("strong", { textContent: value }),
    element("span", { textContent: note || "" })));
}

function figures(found) {
  $("what").textContent = `Bundle of batch ${found.batch_id}, model ${found.model_id.slice(0, 8)}; reward ${found.reward}.`;
  $("span").textContent = found.pages ? `The latest ${found.pages.toLocaleString("en")} pages that the policy drew by itself, ` +
    `${moment(found.since)} to ${moment(found.until)}.` : "No page has been decided yet.";
  const all = found.total;
  const page = all.value === null ? "–" : all.value.toFixed(2);
  const between = all.value_lower === null ? "" : `95 %: ${all.value_lower.toFixed(2)} to ${all.value_upper.toFixed(2)}`;
  $("tiles").replaceChildren(
    tile("Reward a seen card", share(all.reward_rate), `${all.seen.toLocaleString("en")} seen`),
    tile("As the model promised", share(all.predicted_rate),
      found.calibrated ? "mean score of the same cards" : "not calibrated yet: too few pages were reported"),
    tile("Reward a page", page, between),
    tile("Choices that explored", share(all.explore_share), "shelves and cards"),
    tile("Feedback lag", seconds(all.lag_median_s), `90 % within ${seconds(all.lag_p90_s)}`));
  const x = spans(found.periods.map((one) => one.since));
  const line = (name, key, quiet) => ({ name, quiet, points: found.periods.map((one, i) => ({ x: i, y: one[key] })) });
  $("charts").replaceChildren(
    chart({ title: "Reward a seen card", note: "What was earned, and what the model promised of the same cards.", x, xName: "Since",
      format: percent, series: [line("earned", "reward_rate"), line("promised", "predicted_rate", true)] }),
    chart({ title: "Calibration", note: "Seen cards by score; on the diagonal, promises are kept.", format: percent, diagonal: true,
      xName: "Promised", series: [{ name: "earned", points: found.calibration.map((one) => ({ x: one.predicted, y: one.reward })) }] }),
    chart({ title: "Choices that explored", note: "Not the best of what was left.", x, xName: "Since", format: percent, zero: true,
      series: [line("explored", "explore_share")] }),
    chart({ title: "Feedback lag", note: "From what happened to its report.", x, xName: "Since", format: seconds, zero: true,
      series: [line("median", "lag_median_s"), line("90 % within", "lag_p90_s", true)] }));
  $("arms").replaceChildren(element("h3", { textContent: "By arm" }), table(
    ["Arm", "Pages", "Reward a page (95 %)", "Reward a seen card", "Promised", "Explored", "Lag, median"],
    found.arms.map((one) => [
      one.arm || "(no arm)", one.pages.toLocaleString("en"),
      one.value === null ? "–" : `${one.value.toFixed(2)}${one.value_lower === null ? "" : ` (${one.value_lower.toFixed(2)} to ${one.value_upper.toFixed(2)})`}`,
      share(one.reward_rate), share(one.predicted_rate), share(one.explore_share), seconds(one.lag_median_s),
    ]), "By arm"));
  $("taken").replaceChildren(...found.taken_down.map((item_id) => {
    const button = element("button", { type: "button", textContent: "Put back" });
    button.setAttribute("aria-label", `Put ${item_id} back`);
    button.addEventListener("click", () => doing(() => ask(`/v1/takedowns/${encodeURIComponent(item_id)}`, { method: "DELETE" })));
    return element("li", {}, element("code", { textContent: item_id }), button);
  }));
  report(found.report_at).catch(tell);
}

async function report(at) {
  if ($("report").dataset.at === String(at)) return;
  $("report").dataset.at = String(at);
  if (!at) {
    $("report").replaceChildren(element("p", { textContent: "None yet: bart evaluate writes one." }));
    return;
  }
  // A frame cannot send the key: what it shows is fetched, and may do nothing there.
  const srcdoc = await (await fetched("/v1/operate/report")).text();
  const frame = element("iframe", { srcdoc, title: "The latest evaluation report", loading: "lazy" });
  frame.setAttribute("sandbox", "");
  $("report").replaceChildren(element("p", { textContent: `Written ${moment(at)}.` }), frame);
}

// --------------------------------------------------------------------------------------------------------- switches

async function doing(work) {
  try {
    await work();
    $("status").textContent = "";
  } catch (error) {
    tell(error);
  }
  await refresh();
}

function switches(found) {
  $("switches").replaceChildren(...Object.entries(SWITCHES).map(([name, [title, words]]) => {
    const is = found[name] === "on";
    const button = element("button", { type: "button", id: `switch-${name}`, className: "switch", textContent: is ? "on" : "off" });
    button.setAttribute("role", "switch");
    button.setAttribute("aria-checked", String(is));
    button.setAttribute("aria-label", title);
    button.addEventListener("click", async () => {
      const state = is ? "off" : "on";
      const why = await sure(`${title} ${state}, for every listener, at once.`);
      if (why !== null) await doing(() => ask("/v1/control", { body: { switch: name, state, why } }));
      $(`switch-${name}`).focus();
    });
    return element("div", { className: "panel" }, element("h3", { textContent: title }), button, element("p", { textContent: words }));
  }));
  $("history").replaceChildren(...found.history.map((one) => element("li", {},
    element("span", { textContent: moment(one.happened_at) }), element("b", { textContent: one.what }),
    element("span", { textContent: one.why }))), ...(found.history.length ? [] : [element("li", { textContent: "Nothing yet." })]));
}

// ---------------------------------------------------------------------------------------------------------- bundles

function gates(bundle) {
  const gate = bundle.gate;
  if (!gate.gates) return bundle.parent ? "not judged" : "the first";
  const rows = gate.gates.map((one) => element("li", { className: one.passed ? "passed" : "refused" },
    `${one.passed ? "✓" : "✗"} ${one.name}${one.value === null ? "" : ` ${one.value.toPrecision(3)}`}` +
    `${one.bound === null ? "" : ` (${one.text} ${one.bound.toPrecision(3)})`}`));
  return element("details", {}, element("summary", { textContent: gate.passed ? "✓ all gates passed" : `✗ ${gate.reason}` }),
    element("ul", { className: "plain" }, ...rows));
}

function bundles(found) {
  const back = element("button", { type: "button", id: "rollback", disabled: !found.before,
    textContent: found.before ? `Roll back to ${found.before}` : "Nothing to roll back to" });
  back.addEventListener("click", async () => {
    const why = await sure(`Back to ${found.before}.`);
    if (why !== null) await doing(() => ask("/v1/models", { body: { rollback: true, why } }));
  });
  const rows = [...found.bundles].reverse().map((one) => {
    const button = element("button", { type: "button", textContent: one.active ? "Active" : "Activate", disabled: one.active || one.gate.passed === false });
    button.dataset.bundle = one.name;
    button.setAttribute("aria-label", one.active ? `${one.name} is active` : `Activate ${one.name}`);
    button.addEventListener("click", async () => {
      const why = await sure(`${one.name} serves from then on.`);
      if (why !== null) await doing(() => ask("/v1/models", { body: { activate: one.name, why } }));
    });
    return [element("code", { textContent: one.name }), moment(one.created_at), gates(one), button];
  });
  $("bundles").replaceChildren(table(["Name", "Made", "Gates", "Serves"], rows, "Bundles"), back);
}

// -------------------------------------------------------------------------------------------------- the whole log

async function verification() {
  const { running, events, ended } = await ask("/v1/operate/verification");
  $("verify").disabled = running;
  if (!events.length) return;
  const asked = moment(events[0].asked_at);
  if (running) {
    $("verified").replaceChildren(element("p", {}, `Asked for ${asked}; running … `, element("progress", { ariaLabel: "Verification runs" })));
    setTimeout(() => verification().catch(tell), 700);
  } else if (ended.kind === "done") {
    $("verified").replaceChildren(
      element("p", { className: ended.ok ? "passed" : "refused", textContent: `${ended.ok ? "✓ The log can be trusted." : "✗ The log cannot be trusted."} Asked for ${asked}.` }),
      element("p", { textContent: `${ended.verified.toLocaleString("en")} of ${ended.records.toLocaleString("en")} records replayed without a problem ` +
        `(${ended.forced} forced); mean weights: ${ended.means_passed} of ${ended.means} as they must be; ${ended.problem_count} problems.` }),
      element("ul", { className: "plain" }, ...ended.problems.map((textContent) => element("li", { textContent }))));
  } else {
    $("verified").replaceChildren(element("p", { className: "refused", textContent: `✗ It ${ended.kind}: ${ended.reason || ""}` }));
  }
}

// -------------------------------------------------------------------------------------------------------------------

async function refresh() {
  const mine = refresh.asked = (refresh.asked || 0) + 1;
  try {
    const [control, models, figure] = await Promise.all([ask("/v1/control"), ask("/v1/models"), ask("/v1/operate")]);
    if (mine !== refresh.asked) return;  // a slow answer shows nothing older over a newer one
    switches(control);
    bundles(models);
    const told = JSON.stringify(figure);
    if (told !== refresh.told) figures(figure);  // what is unchanged stays, with its open details
    refresh.told = told;
    document.body.dataset.ready = "yes";
  } catch (error) {
    tell(error);
  }
}

$("takedown").addEventListener("submit", async (event) => {
  event.preventDefault();
  const item_id = $("item").value;
  const why = await sure(`${item_id} stands on no page from then on.`);
  if (why !== null) await doing(() => ask(`/v1/items/${encodeURIComponent(item_id)}`, { method: "DELETE" }));
});
$("verify").addEventListener("click", () => {
  $("verify").disabled = true;
  ask("/v1/operate/verification", { body: {} }).then(verification).catch(tell);
});
function begin() {
  refresh();
  verification().catch(tell);
}
whenKeyGiven(begin);
begin();
setInterval(() => { if (!document.hidden && !$("sure").open && !document.activeElement.closest("#bundles, #switches")) refresh(); }, EVERY_MS);
