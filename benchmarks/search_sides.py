"""The sides of the search benchmark: one search, on one task, for so many seconds, in a process tree of its own.

Every side answers with its trials and its *course*: after how many seconds of wall time (imports included) and how many
trials which best latency was known. `ms.tune_tir` knows no time limit: its process is killed, and its database was read
as it grew.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SIDES = ("ours", "stock", "repaired")
_POLL_S = 0.5
_KEY = "side.json"
# Of our wall time, for what a job does when its search ends: the finalists timed side by side, and the winner checked.
_FINISH_S = 15.0


def measure_side(side: str, task: str, seconds: float, *, seed: int, per_iteration: int) -> dict[str, Any]:
    """Give one side its wall time; the answer has its settings and ``trials trials_per_s best_us course trace``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TVM_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    with tempfile.TemporaryDirectory(prefix="search-") as name:
        directory = Path(name)
        command = [sys.executable, "-m", "benchmarks.search_sides", side, task, str(seconds), name, str(seed)]
        database = _Database(directory / "database_tuning_record.json")
        started = time.monotonic()
        with (directory / "log").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(per_iteration)],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            limit_s = seconds + (60 if side == "ours" else 0)
            while process.poll() is None and time.monotonic() - started < limit_s:
                time.sleep(_POLL_S)
                database.read(time.monotonic() - started)
            _kill_tree(process)
        if side == "ours":
            answer: dict[str, Any] = json.loads((directory / _KEY).read_text())
        else:
            answer = database.answer()
    return {
        "task": task,
        "side": side,
        "seed": seed,
        "seconds": seconds,
        "trials_per_s": round(answer["trials"] / seconds, 3),
        **answer,
    }


def seconds_to(row: dict[str, Any], latency_us: float) -> float | None:
    """After how many seconds a side knew a schedule at least as fast, None when it never did."""
    return next((seconds for seconds, _, best_us in row["course"] if best_us <= latency_us), None)


def best_after(row: dict[str, Any], trials: int) -> float | None:
    """The best latency in µs that a side knew after so many trials, None when it knew none."""
    return min((best_us for _, count, best_us in row["course"] if count <= trials), default=None)


@dataclass
class _Database:
    """MetaSchedule's database of records, read while it grows; failures (run time 1e10) are trials too."""

    path: Path
    trials: int = 0
    best_us: float | None = None
    trace: str | None = None
    course: list[tuple[float, int, float]] = field(default_factory=list)
    _offset: int = 0

    def read(self, elapsed_s: float) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # the last line may be in the writing
        self._offset += len(whole)
        for line in whole.splitlines():
            _, (trace, run_seconds, *_) = json.loads(line)
            self.trials += 1
            latency_us = sum(map(float, run_seconds)) / len(run_seconds) * 1e6 if run_seconds else math.inf
            if latency_us < 1e15 and (self.best_us is None or latency_us < self.best_us):
                self.best_us = latency_us
                self.trace = json.dumps(_without_postprocessing(*trace))
                self.course.append((round(elapsed_s, 1), self.trials, latency_us))

    def answer(self) -> dict[str, Any]:
        return {"trials": self.trials, "best_us": self.best_us, "course": self.course, "trace": self.trace}


def _without_postprocessing(instructions: list[Any], decisions: list[Any]) -> list[Any]:
    """The sampled part of a stored trace: the postprocessors are applied anew when it is replayed."""
    kinds = [instruction[0] for instruction in instructions]
    end = kinds.index("EnterPostproc") if "EnterPostproc" in kinds else len(kinds)
    return [instructions[:end], [pair for pair in decisions if pair[0] < end]]


def _kill_tree(process: subprocess.Popen[bytes]) -> None:
    import psutil

    if process.poll() is None:
        parent = psutil.Process(process.pid)
        for child in [*parent.children(recursive=True), parent]:
            child.kill()
    process.wait()


def _run_ours(task: str, seconds: float, directory: Path, *, seed: int) -> dict[str, Any]:
    started = time.monotonic()
    from benchmarks.one_task import one_task
    from tuner.events import Event, TrialMeasured
    from tuner.measure.builder import BuildPool
    from tuner.measure.runner import LocalRunner
    from tuner.records import MemoryRecordStore
    from tuner.request import Budget
    from tuner.targets import host_target
    from tuner.winners import Winners

    course: list[tuple[float, int, float]] = []

    class Course:
        """Notes every new best latency as the search reports it."""

        def emit(self, *events: Event) -> None:
            for event in events:
                best_us = event.task_best_us if isinstance(event, TrialMeasured) else None
                if isinstance(event, TrialMeasured) and best_us is not None and (not course or best_us < course[-1][2]):
                    course.append((round(time.monotonic() - started, 1), event.number, best_us))

    spec, store = host_target(), MemoryRecordStore()
    with BuildPool(spec, workers=spec.threads) as builder, LocalRunner(threads=spec.threads) as runner:
        tuning = one_task(
            task, spec=spec, store=store, builder=builder, runner=runner, sink=Course(), scratch=directory, seed=seed
        )
        limit_s = max(1.0, seconds - _FINISH_S - (time.monotonic() - started))
        summary = tuning.run(Budget(trials=None, time_limit_s=limit_s))
        trials = len(store.own())
        finals = Winners(
            target=spec,
            store=store,
            builder=builder,
            runner=runner,
            sink=tuning.sink,
            scratch=directory,
            seed=seed,
            drift=summary.drift,
        )
        winner = finals.choose(tuning.tasks, {})[task]
    return {"trials": trials, "best_us": winner.latency_us, "course": course, "trace": winner.trace}


def _run_stock(task: str, directory: Path, *, seed: int, per_iteration: int, repaired: bool) -> None:
    """Runs until it is killed."""
    from tvm.target import Target

    from benchmarks.search_tasks import workload
    from tuner.targets import host_target

    target = Target(host_target().tvm)
    if repaired:
        _repair()
    from tvm.s_tir import meta_schedule as ms

    builder = ms.builder.LocalBuilder(initializer=_repair) if repaired else "local"
    ms.tune_tir(
        workload(task),
        target,
        str(directory),
        max_trials_global=1_000_000,
        num_trials_per_iter=per_iteration,
        builder=builder,
        seed=seed,
    )


def _repair() -> None:
    """In every process of the repaired side: register this machine's intrinsics without importing everybody else's."""
    from tvm.target import Target

    from schedules.intrinsics import register_intrinsics
    from tuner.targets import host_target

    register_intrinsics(Target(host_target().tvm))


def _main() -> int:
    parser = argparse.ArgumentParser(description="Run by benchmarks/search.py.")
    parser.add_argument("side", choices=SIDES)
    parser.add_argument("task")
    parser.add_argument("seconds", type=float)
    parser.add_argument("directory", type=Path)
    parser.add_argument("seed", type=int)
    parser.add_argument("per_iteration", type=int)
    a = parser.parse_args()
    if a.side == "ours":
        answer = _run_ours(a.task, a.seconds, a.directory, seed=a.seed)
        (a.directory / _KEY).write_text(json.dumps(answer))
    else:
        _run_stock(a.task, a.directory, seed=a.seed, per_iteration=a.per_iteration, repaired=a.side == "repaired")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
