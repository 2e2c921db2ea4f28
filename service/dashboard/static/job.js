// The job page: one event stream feeds the chart and the log; everything else is the server's page, refreshed.
import { Chart } from "./chart.js";
import { text, trialLines } from "./elements.js";
import { refresh } from "./live.js";
import { follow } from "./stream.js";
import { Trials } from "./trials.js";

const REFRESH_MS = 1000;
const job = document.getElementById("job").dataset;
const trials = new Trials(job.job);
const select = document.getElementById("chart-task");
const logScale = document.getElementById("chart-log");
const box = document.getElementById("chart");
const empty = document.getElementById("chart-empty");
const chart = new Chart(box, document.getElementById("chart-key"), describe, (trial) => trials.complete(trial));

function describe(trial) {
  return trialLines(trial, [...select.options].find((option) => option.value === trial.task)?.dataset.name ?? trial.task);
}

function draw() {
  const facts = document.getElementById("chart-facts").dataset;
  const lines = [
    ["untuned", facts.untunedUs],
    ["ONNX Runtime", facts.onnxruntimeUs],
  ]
    .filter(([, us]) => us)
    .map(([name, us]) => ({ name, us: Number(us) }));
  const weights = new Map([...select.options].filter((option) => option.value).map((option) => [option.value, Number(option.dataset.weight)]));
  const view = select.value ? trials.ofTask(select.value) : trials.ofNetwork(weights, lines);
  empty.hidden = view.points.length > 0;
  box.dataset.points = view.points.length;
  if (!view.points.length && !chart.plot) return;
  chart.show(view);
}

let drawing = false;
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    draw();
  });
}

select.addEventListener("change", draw);
logScale.addEventListener("change", () => chart.setLog(logScale.checked));

// Refreshes at most once a second, and once more after the last event of a burst.
let due = null;
function refreshSoon() {
  due ??= setTimeout(async () => {
    due = null;
    try {
      await refresh();
      drawSoon();
    } catch {
      refreshSoon();
    }
  }, REFRESH_MS);
}

const log = document.getElementById("log");
let lastLine = Number(log.dataset.last);
function addLine(id, line) {
  if (id && id <= lastLine) return;
  lastLine = id || lastLine;
  const following = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  const shown = text("span", `${line.message}\n`);
  shown.className = line.level ?? "info";
  log.querySelector(".placeholder")?.remove();
  log.append(shown);
  if (following) log.scrollTop = log.scrollHeight;
}
log.scrollTop = log.scrollHeight;

function listen() {
  const refreshing = ["state", "stage", "preflight", "tasks", "recall", "progress", "drift", "baseline", "roofline", "untuned", "result", "end"];
  follow(job, {
    trial: (event) => trials.add(JSON.parse(event.data)) && drawSoon(),
    log: (event) => addLine(Number(event.lastEventId), JSON.parse(event.data)),
    ...Object.fromEntries(refreshing.map((kind) => [kind, refreshSoon])),
  });
}

try {
  await trials.load(() => box.dataset.points || drawSoon());
} catch {
  empty.textContent = "The trials could not be read. Reload the page to try again.";
}
draw();
if (job.liveJob) listen();
