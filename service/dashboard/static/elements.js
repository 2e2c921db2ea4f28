// Elements that scripts make.
import { knobLines, latency } from "./figures.js";

export function text(tag, content) {
  const element = document.createElement(tag);
  element.textContent = content;
  return element;
}

// What the chart says of a trial under the pointer; `more` are lines behind its result.
export function trialLines(trial, ...more) {
  const result = trial.failure ? trial.failure.replaceAll("_", " ") : latency(trial.latency_us);
  return [text("b", `Trial ${trial.number}: ${result}`), ...[...more, ...knobLines(trial.knobs)].map((line) => text("div", line))];
}
