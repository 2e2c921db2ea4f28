// Checks the uploaded model as soon as its page is open, and again when the target or a shape changes.
import { patch } from "./live.js";

// `form.action` would be the button of that name.
const form = document.getElementById("start");
const report = document.getElementById("preflight");
let running = null;

async function check() {
  running?.abort();
  running = new AbortController();
  const fields = new FormData(form);
  fields.set("action", "check");
  report.setAttribute("aria-busy", "true");
  document.getElementById("checking").hidden = false;
  try {
    const answer = await fetch(form.getAttribute("action"), { method: "POST", body: new URLSearchParams(fields), signal: running.signal, headers: { Accept: "text/html" } });
    patch(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch (error) {
    if (error.name === "AbortError") return;
    document.getElementById("checking").textContent = "The check could not be asked for: is the server still running?";
    return;
  }
  report.removeAttribute("aria-busy");
  document.getElementById("checking").hidden = true;
}

form.addEventListener("change", (event) => {
  if (event.target.name === "target" || event.target.name?.startsWith("shape:")) check();
});
form.addEventListener("click", (event) => {
  if (event.target.value === "check" && event.target.name === "action") {
    event.preventDefault();
    check();
  }
});
// Writing into a budget field chooses that budget.
for (const field of form.querySelectorAll("[data-budget]"))
  field.addEventListener("input", () => (document.getElementById(field.dataset.budget).checked = true));

if (form.dataset.unchecked) check();
