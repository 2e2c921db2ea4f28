// The page of a task: its trials as a chart, with those that come while the job runs; the rest is the server's page.
import { Chart } from "./chart.js";
import { trialLines } from "./elements.js";
import { refresh } from "./live.js";
import { follow } from "./stream.js";
import { Trials } from "./trials.js";

const REFRESH_MS = 1000;
const page = document.getElementById("task").dataset;
const trials = new Trials(page.job);
const box = document.getElementById("chart");
const empty = document.getElementById("chart-empty");
const logScale = document.getElementById("chart-log");
const chart = new Chart(box, document.getElementById("chart-key"), (trial) => trialLines(trial), (trial) => trials.complete(trial));

function draw() {
  const view = trials.ofTask(page.task);
  empty.hidden = view.points.length > 0;
  box.dataset.points = view.points.length;
  if (view.points.length) chart.show(view);
}

logScale.addEventListener("change", () => chart.setLog(logScale.checked));

let due = null;
function refreshSoon() {
  due ??= setTimeout(() => {
    due = null;
    refresh().catch(refreshSoon);
  }, REFRESH_MS);
}

function listen() {
  follow(page, {
    trial: (event) => {
      const trial = JSON.parse(event.data);
      if (trial.task !== page.task || !trials.add(trial)) return;
      draw();
      refreshSoon();
    },
    untuned: refreshSoon,
    end: refreshSoon,
  });
}

try {
  await trials.load(draw, { task: page.task });
} catch {
  empty.textContent = "The trials could not be read. Reload the page to try again.";
}
draw();
if (page.liveJob) listen();
