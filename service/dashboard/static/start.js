// Checks the uploaded model as soon as its page is open, and again when the target or a shape changes; says what the
// chosen budget and memory limit mean.
import { count, duration, size, sizeAtLeast } from "./figures.js";
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
  sayBudget();
  sayMemory();
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
// Writing into a budget field chooses that budget, unless both count already.
for (const field of form.querySelectorAll("[data-budget]"))
  field.addEventListener("input", () => {
    if (!document.getElementById("by-both").checked) document.getElementById(field.dataset.budget).checked = true;
  });

// As budget_note in expectations.py.
function sayBudget() {
  const note = document.getElementById("budget-note");
  const perTrial = Number(note.dataset.secondsPerTrial);
  const budget = form.elements.budget.value;
  const trials = Number(form.elements.trials.value);
  const timeS = 60 * Number(form.elements.minutes.value);
  const wrong = (budget !== "time" && !(trials >= 1)) || (budget !== "trials" && !(timeS > 0));
  if (!perTrial || wrong) note.textContent = "";
  else if (budget === "time") note.textContent = `${duration(timeS)}: about ${count(Math.max(1, Math.round(timeS / perTrial)))} trials.`;
  else {
    const first = budget === "both" ? ` The ${trials * perTrial <= timeS ? "trials end" : "time ends"} first.` : "";
    note.textContent = `${count(trials)} trial${trials === 1 ? "" : "s"}: about ${duration(Math.max(1, trials * perTrial))}.${first}`;
  }
}

const memory = document.getElementById("memory");
const memoryNote = document.getElementById("memory-note");
const UNITS = { b: 1, kb: 1e3, mb: 1e6, gb: 1e9, kib: 2 ** 10, mib: 2 ** 20, gib: 2 ** 30, "": 2 ** 20 };

function bytesOf(text) {
  const [, number, unit] = /^(\d+(?:\.\d+)?)\s*([a-z]*)$/.exec(text.trim().toLowerCase()) ?? [];
  return number && unit in UNITS ? Number(number) * UNITS[unit] : NaN;
}

// The field counts; the slider is a way to fill it. Its right end is no limit.
function sayMemory() {
  const slider = document.getElementById("memory-slider");
  const bytes = memory.value.trim() ? bytesOf(memory.value) : null;
  let note = bytes === null ? "No limit." : "";
  if (slider) {
    const [least, usual] = [Number(slider.min), Number(slider.max)];
    if (bytes === null) slider.value = usual;
    else if (!Number.isNaN(bytes)) {
      slider.value = bytes;
      if (bytes < 0.995 * least) note = `Jobs are likely to refuse less than ${size(least)}.`;
      else if (bytes >= usual) note = "More than a run takes without windows.";
      else note = `${Math.round(100 * (1 - bytes / usual))} % less than the ${size(usual)} without windows.`;
    }
    slider.setAttribute("aria-valuetext", bytes === null ? "no limit" : `${memory.value}. ${note}`);
  }
  memoryNote.textContent = note;
}

form.addEventListener("input", (event) => {
  if (event.target.id === "memory-slider") {
    const atEnd = Number(event.target.value) >= Number(event.target.max);
    memory.value = atEnd ? "" : sizeAtLeast(Number(event.target.value));
  }
  sayBudget();
  sayMemory();
});
sayBudget();
sayMemory();
if (form.dataset.unchecked) check();
