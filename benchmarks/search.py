"""Search against search: this loop and TVM's own MetaSchedule on the same tasks and machine.

    python benchmarks/search.py --vs stock [--quick | --all] [--rows FILE] [--tasks conv3x3,matmul,…]

On every task the sides take turns, each in a process of its own, imports included in its wall time:

* ``stock``: ``ms.tune_tir`` unmodified.
* ``repaired``: the same without its import trap (every build worker of every batch imports all of TVM's tensor
  intrinsics, 20 s of CPU; here only this machine's are registered). The honest peer.
* ``ours``: Tessera's loop.

Three tasks with 5 minutes a side take 53 minutes; ``--quick`` gives stock 3 minutes and the others 2; ``--all`` takes
nine tasks, gives stock 10 minutes, and runs ours with three seeds.

Stock runs at the better of 16 and 64 trials per iteration, found by a probe; it has all threads, which it would not
take by itself. Finally the best schedule of every run is built anew and timed side by side by one runner, so that final
latencies are of one minute. Ratios are ours ÷ theirs, the median over seeds, then over tasks; `wall_to_…_ratio` is the
time in which this loop knew a schedule as fast as the peer's final one ÷ the peer's whole wall time (null: never);
`equal_trials_latency_ratio` compares the best latencies after as many trials as the peer had, each side's own timing.
With ``--rows`` finished tasks are kept in a file, and a second call does the others.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.rows import keep_row, provenance, read_rows  # noqa: E402
from benchmarks.search_sides import best_after, measure_side, seconds_to  # noqa: E402
from benchmarks.search_tasks import QUICK_TASKS, TASKS, workload  # noqa: E402

_FINAL_ROUNDS = 5
_PEERS = ("stock", "repaired")
_ITERATION_SIZES = (16, 64)


def choose_iteration_sizes(task: str, seconds: float) -> dict[str, int]:
    """The better of 16 and 64 trials per iteration for each peer; 64, which is better nearly always, unprobed."""
    chosen = dict.fromkeys(_PEERS, _ITERATION_SIZES[-1])
    for side in _PEERS if seconds else ():
        rates = {
            size: measure_side(side, task, seconds, seed=1, per_iteration=size)["trials_per_s"]
            for size in _ITERATION_SIZES
        }
        chosen[side] = max(rates, key=lambda size: rates[size])
        print(f"probe {side}: {rates} trials/s -> {chosen[side]} per iteration", flush=True)
    return chosen


def compare_on(task: str, seconds: dict[str, float], seeds: int, iteration_sizes: dict[str, int]) -> dict[str, Any]:
    """One task's row: all runs, their best schedules timed side by side, and the ratios."""
    runs = [(side, 1) for side in _PEERS] + [("ours", seed) for seed in range(1, seeds + 1)]
    found = []
    for side, seed in runs:
        size = iteration_sizes.get(side, 0)
        row = measure_side(side, task, seconds[side], seed=seed, per_iteration=size)
        found.append(row)
        rate, best = row["trials_per_s"], row["best_us"]
        print(f"{task:15} {side:9} {row['trials']:6d} trials {rate:7.2f}/s  best {best} µs", flush=True)
    time_finals(task, found)
    for row in found:
        print(f"{task:15} {row['side']:9} final {row.get('final_us')} µs", flush=True)
    return {
        "task": task,
        **provenance(),
        **ratios(found),
        "runs": [{key: value for key, value in row.items() if key != "trace"} for row in found],
    }


def ratios(runs: list[dict[str, Any]]) -> dict[str, float | None]:
    """A task's ratios, the median over the seeds. A peer without any schedule has none (None)."""
    ours = [row for row in runs if row["side"] == "ours"]
    answer: dict[str, float | None] = {}
    for peer in _PEERS:
        theirs = next(row for row in runs if row["side"] == peer)
        prefix = "" if peer == "stock" else "repaired_"
        rate, final_us = theirs["trials_per_s"], theirs.get("final_us")
        answer[f"{prefix}trials_per_s_ratio"] = _median([row["trials_per_s"] / rate for row in ours]) if rate else None
        reached = [seconds_to(row, final_us or math.inf) for row in ours]
        walls = [math.inf if wall is None else wall / theirs["seconds"] for wall in reached]
        answer[f"wall_to_{peer}_final_ratio"] = _median(walls)
        finals = [row["final_us"] / final_us for row in ours] if final_us else []
        answer[f"{prefix}final_latency_ratio"] = _median(finals)
        same = [best_after(row, theirs["trials"]) for row in ours]
        equal = [best_us / theirs["best_us"] for best_us in same if best_us and theirs["best_us"]]
        answer[f"{prefix}equal_trials_latency_ratio"] = _median(equal)
    return answer


def time_finals(task: str, runs: list[dict[str, Any]]) -> None:
    """Time the best schedule of every run again, interleaved, with every pass of LLVM; fills in ``final_us``."""
    import tvm

    from tuner.measure.builder import BuildPool
    from tuner.measure.jobs import BuildJob, Built, Failure, TaskSource, Timed
    from tuner.measure.runner import LocalRunner
    from tuner.targets import host_target

    spec = host_target()
    source = TaskSource(key=task, module_json=tvm.ir.save_json(workload(task)))
    found = [row for row in runs if row["trace"]]
    with (
        tempfile.TemporaryDirectory(prefix="final-") as name,
        BuildPool(spec, workers=1) as builder,
        LocalRunner(threads=spec.threads) as runner,
    ):
        jobs = [
            BuildJob(task=source, trace_json=row["trace"], output=Path(name) / f"{row['side']}-{row['seed']}.so")
            for row in found
        ]
        answers = builder.build(jobs)
        built = [item for item in answers if isinstance(item, Built)]
        if len(built) < len(found):
            reasons = [item.message for item in answers if isinstance(item, Failure)]
            raise SystemExit(f"{task}: a best schedule could not be built again: {reasons}")
        samples: list[list[float]] = [[] for _ in built]
        for _ in range(_FINAL_ROUNDS):
            for latencies, timed in zip(samples, runner.time(built, best_us=None), strict=True):
                if isinstance(timed, Timed):
                    latencies.append(timed.latency_us)
    for row, latencies in zip(found, samples, strict=True):
        row["final_us"] = round(statistics.median(latencies), 2)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the tasks: medians, and the worst final latency against the repaired peer."""
    finals = [row["repaired_final_latency_ratio"] for row in rows if row["repaired_final_latency_ratio"]]
    known = ("trials_per_s_ratio", "repaired_trials_per_s_ratio", "final_latency_ratio")
    equal = ("equal_trials_latency_ratio", "repaired_equal_trials_latency_ratio")
    walls = ("wall_to_stock_final_ratio", "wall_to_repaired_final_ratio")
    return {
        **{key: _median([row[key] for row in rows if row.get(key) is not None]) for key in (*known, *equal)},
        **{key: _median([math.inf if row[key] is None else row[key] for row in rows]) for key in walls},
        "final_latency_ratio_median": _median(finals),
        "final_latency_ratio_max": max(finals, default=None),
        "rows": rows,
    }


def _median(values: list[float]) -> float | None:
    """None for nothing, and where half of the values are infinite."""
    middle = statistics.median(values) if values else math.inf
    return round(middle, 4) if math.isfinite(middle) else None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--vs", choices=["stock"], default="stock", help="the peer")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="one seed, 3, 2 and 2 minutes: 22 minutes in all")
    size.add_argument("--all", action="store_true", help="every task, three seeds, 10, 5 and 5 minutes: hours")
    parser.add_argument("--tasks", help=f"comma-separated, of {', '.join(TASKS)}")
    parser.add_argument("--rows", type=Path, help="keep finished tasks in this file (JSON lines) and go on from it")
    parser.add_argument("--stock-seconds", type=float, help="wall time of stock as shipped on each task")
    parser.add_argument("--seconds", type=float, help="wall time of each run of ours and of repaired stock")
    parser.add_argument("--seeds", type=int, help="runs of ours on each task")
    parser.add_argument("--probe-seconds", type=float, help="wall time of each probe (0: 64 trials per iteration)")
    given = parser.parse_args()
    usual: tuple[Any, ...] = (QUICK_TASKS, 300.0, 300.0, 1, 120.0)
    if given.quick:
        usual = (QUICK_TASKS, 180.0, 120.0, 1, 0.0)
    elif given.all:
        usual = (TASKS, 600.0, 300.0, 3, 120.0)
    names = ("tasks", "stock_seconds", "seconds", "seeds", "probe_seconds")
    for name, default in zip(names, usual, strict=True):
        if getattr(given, name) is None:
            setattr(given, name, default)
    given.tasks = given.tasks.split(",") if isinstance(given.tasks, str) else list(given.tasks)
    unknown = set(given.tasks) - set(TASKS)
    if unknown:
        parser.error(f"unknown tasks {sorted(unknown)}; known: {', '.join(TASKS)}")
    return given


def main() -> int:
    arguments = _arguments()
    seconds = {"stock": arguments.stock_seconds, "repaired": arguments.seconds, "ours": arguments.seconds}
    rows = read_rows(arguments.rows)
    left = [task for task in arguments.tasks if task not in {row["task"] for row in rows}]
    sizes = choose_iteration_sizes(left[0], arguments.probe_seconds) if left else {}
    for task in left:
        rows.append(compare_on(task, seconds, arguments.seeds, sizes))
        keep_row(arguments.rows, rows[-1])
    print(json.dumps(summary(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
