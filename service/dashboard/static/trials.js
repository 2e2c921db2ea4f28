// The trials of a job in the browser, in order, each once; and what the chart shows of them.

export class Trials {
  constructor(job) {
    this.url = `/jobs/${job}/chart`;
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

  // Reads what is stored already, by columns and without knobs. Pages of a very long job come one after another, and
  // `more` is called after each but the last. `filter` is more of the query, to read some of them only.
  async load(more, filter = {}) {
    let after = 0;
    do {
      const page = await read(`${this.url}?${new URLSearchParams({ ...filter, after })}`);
      const fields = Object.entries(page.columns);
      for (let row = 0; row < page.columns.number.length; row++)
        this.add(Object.fromEntries(fields.map(([name, values]) => [name, values[row]])));
      after = page.next;
      if (after) more();
    } while (after);
  }

  // Fills in the knobs of a trial, which only those that came as events have from the beginning.
  async complete(trial) {
    trial.knobs ??= (await read(`${this.url}/${trial.number}`)).knobs;
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

async function read(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`the trials answered ${answer.status}`);
  return answer.json();
}
