// The jobs list: its figures move in place every two seconds while somebody looks.
import { refresh } from "./live.js";

const PERIOD_MS = 2000;
const status = document.getElementById("link-state");

async function tick() {
  if (!document.hidden) {
    try {
      await refresh();
      status.hidden = true;
    } catch {
      status.textContent = "Reconnecting…";
      status.hidden = false;
    }
  }
  setTimeout(tick, PERIOD_MS);
}
setTimeout(tick, PERIOD_MS);
