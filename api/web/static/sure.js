// "Are you sure?": a question with a reason, before what cannot be undone or holds for everybody.
import { $, element } from "./common.js";

const dialog = element("dialog", { id: "sure" });
dialog.setAttribute("aria-labelledby", "sure-title");
dialog.append(element("form", { method: "dialog" },
  element("h2", { id: "sure-title", textContent: "Are you sure?" }),
  element("p", { id: "sure-text" }),
  element("label", {}, "Why ", element("input", { id: "sure-why", maxLength: 300, autocomplete: "off" })),
  element("p", { className: "buttons" }, element("button", { value: "cancel", textContent: "Cancel" }),
    element("button", { id: "sure-yes", value: "ok", textContent: "Do it" }))));
document.body.append(dialog);

let closed = Promise.resolve();  // the event of a closed question may come after the next one is asked

// The reason that was given; null where the answer is no.
export async function sure(text) {
  await closed;
  $("sure-text").textContent = text;
  $("sure-why").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  closed = new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  await closed;
  return dialog.returnValue === "ok" ? $("sure-why").value : null;
}
