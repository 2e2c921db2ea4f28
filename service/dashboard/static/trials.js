// The trials of a job in the browser, in order, each once; and what the chart shows of them.

// The first page is small, so that something is drawn soon.
const FIRST_PAGE = 1000;
const PAGE = 10000;

export class Trials {
  constructor() {
    this.list = [];
    this.known = new Map();
  }

  // True when the trial says something new. Streams repeat events after a reconnection; and a trial that was read
  // right after it was stored becomes whole only with its event, which says what it means for its task and the network.
  add(trial) {
    const known = this.known.get(trial.number);
    if (known) {
      if (known.task_best_us != null || trial.task_best_us == null) return false;
      Object.assign(known, trial);
      return true;
    }
    this.known.set(trial.number, trial);
    const last = this.list.at(-1);
    this.list.push(trial);
    if (last && last.number > trial.number) this.list.sort((a, b) => a.number - b.number);
    return true;
  }

  // Reads what is stored already; pages of a long job come one after another, and `loaded` is called after each.
  // `filter` is more of the query, to read some of them only.
  async load(url, loaded, filter = {}) {
    let cursor = null;
    do {
      const query = new URLSearchParams(cursor ? { ...filter, limit: PAGE, cursor } : { ...filter, limit: FIRST_PAGE });
      const answer = await fetch(`${url}?${query}`);
      if (!answer.ok) throw new Error(`the trials answered ${answer.status}`);
      const page = await answer.json();
      for (const trial of page.items) this.add(trial);
      cursor = page.next_cursor;
      loaded();
    } while (cursor);
  }

  // One task: its own latencies and its best so far.
  ofTask(key) {
    const points = this.list.filter((trial) => trial.task === key);
    let best = null;
    return {
      points,
      x: points.map((trial) => trial.number),
      dots: points.map((trial) => trial.latency_us),
      best: points.map((trial) => (best = trial.task_best_us ?? (trial.latency_us == null ? best : Math.min(best ?? Infinity, trial.latency_us)))),
      lines: [],
    };
  }

  // The whole network: Σ weight × best over the tasks; a dot is that sum had the trial been its task's choice.
  ofNetwork(weights, lines) {
    const points = this.list;
    let estimate = null;
    const best = points.map((trial) => (estimate = trial.estimated_us ?? estimate));
    return {
      points,
      x: points.map((trial) => trial.number),
      best,
      dots: points.map((trial) =>
        trial.latency_us == null || trial.estimated_us == null || trial.task_best_us == null
          ? null
          : trial.estimated_us + (weights.get(trial.task) ?? 1) * (trial.latency_us - trial.task_best_us),
      ),
      lines,
    };
  }
}
