"""Is the short, adaptive timing of the search good enough to rank by?

    python benchmarks/measure.py [--tasks conv3x3,conv1x1,matmul] [--candidates 60]

Candidates of a task, from fast to 20 times slower, are timed as the search times them (batches of 16, aborted or sent
out of the rounds when they are clearly slower) and by two references of 500 ms each, all candidates in turns, each
reference in a process of its own: where tensors happen to lie in memory is part of the noise, and a network runs in
another process than its search. Printed are the rank agreement (Kendall's tau) with the mean of the references, over
all candidates and among the best 15, where the references' agreement with each other is what can be had at all; the
regret of the pick; and the cost of a trial against MetaSchedule's default evaluator (3 runs, at least 100 ms).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.search_tasks import workload
from schedules.decisions import DecisionSpace
from schedules.space import design_spaces
from tuner.measure.builder import BuildPool
from tuner.measure.jobs import BuildJob, Built, TaskSource, Timed, new_library
from tuner.measure.runner import LocalRunner
from tuner.search.draft import Drafter
from tuner.search.features import analytic_scores
from tuner.targets import TargetSpec, host_target
from tuner.tuning import machine_of

Measured = TypeVar("Measured")
_BATCH = 16
_BEST = 15
_REFERENCE_S = 0.5
_REFERENCE_ROUNDS = 5
_SLOWEST = 20.0


def build_candidates(task: str, count: int, spec: TargetSpec, builder: BuildPool, directory: Path) -> list[Built]:
    """Candidates that build, half of them chosen by the prior, half at random."""
    import tvm
    from tvm.target import Target

    mod = workload(task)
    spaces = design_spaces(mod, Target(spec.tvm), cores=spec.threads, vector_bits=spec.vector_bits, seed=1)
    drafter = Drafter(spaces, seed=1)
    drafts = drafter.propose(
        count, lambda i, genomes: analytic_scores(spaces[i], genomes, machine_of(spec)), exploration=0.5
    )
    source = TaskSource(key=task, module_json=tvm.ir.save_json(mod))

    def job(space: DecisionSpace, genome: NDArray[np.int32]) -> BuildJob:
        trace = space.trace_json(space.decisions(genome))
        return BuildJob(task=source, trace_json=trace, output=new_library(directory), quick=True)

    answers = builder.build([job(spaces[draft.space], draft.genome) for draft in drafts])
    return [item for item in answers if isinstance(item, Built)]


class References:
    """Candidates loaded into this process, to be timed for long."""

    def __init__(self, candidates: list[Built]) -> None:
        import tvm

        from tuner.measure.run_worker import ArgumentSets, Inputs

        inputs = Inputs()
        self._cpu = tvm.cpu()
        self._loaded: list[tuple[Any, str, ArgumentSets]] = []
        for item in candidates:
            module = tvm.runtime.load_module(str(item.library))
            self._loaded.append(
                (module, item.symbol, inputs.get(item.arguments, network_weight_bytes=item.network_weight_bytes))
            )
        self._once_us = [self._run_us(index, 10) for index in range(len(candidates))]

    def run_us(self, index: int, seconds: float) -> float:
        return self._run_us(index, max(1, round(seconds * 1e6 / self._once_us[index])))

    def run_by_default(self, index: int) -> None:
        """Time a candidate as MetaSchedule's default evaluator does."""
        module, symbol, argument_sets = self._loaded[index]
        module.time_evaluator(symbol, self._cpu, number=3, repeat=1, min_repeat_ms=100)(*argument_sets.next(1)[0])

    def _run_us(self, index: int, number: int) -> float:
        from tuner.measure.run_worker import run_us

        module, symbol, argument_sets = self._loaded[index]
        return run_us(module, symbol, argument_sets, number)

    def interleaved_us(self, indices: list[int]) -> NDArray[np.float64]:
        """The median of several rounds, all candidates in turns, `_REFERENCE_S` for each in all."""
        round_s = _REFERENCE_S / _REFERENCE_ROUNDS
        rounds = [[self.run_us(index, round_s) for index in indices] for _ in range(_REFERENCE_ROUNDS)]
        return np.median(np.array(rounds), axis=0)


def in_own_process(measure: Callable[[list[Built]], Measured], candidates: list[Built]) -> Measured:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(measure, candidates).result()


def reference_us(candidates: list[Built]) -> NDArray[np.float64]:
    """Long, interleaved timings of all candidates in µs."""
    return References(candidates).interleaved_us(list(range(len(candidates))))


def default_seconds(candidates: list[Built]) -> float:
    """What MetaSchedule's default evaluator takes for all candidates."""
    references = References(candidates)
    started = time.perf_counter()
    for index in range(len(candidates)):
        references.run_by_default(index)
    return time.perf_counter() - started


def time_adaptively(runner: LocalRunner, candidates: list[Built]) -> tuple[NDArray[np.float64], float]:
    """Latencies in µs as the search finds them, and the seconds that a candidate took."""
    started = time.perf_counter()
    latencies: list[float] = []
    for start in range(0, len(candidates), _BATCH):
        best_us = min(latencies, default=None)
        timed = runner.time(candidates[start : start + _BATCH], best_us=best_us)
        latencies += [item.latency_us if isinstance(item, Timed) else float("inf") for item in timed]
    return np.array(latencies), (time.perf_counter() - started) / len(candidates)


def kendall_tau(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The share of pairs that are ordered alike, minus the share of those ordered otherwise."""
    a, b = np.triu_indices(len(first), 1)
    return float(np.mean(np.sign(first[a] - first[b]) * np.sign(second[a] - second[b])))


def measure(task: str, count: int) -> dict[str, Any]:
    spec = host_target()
    with (
        tempfile.TemporaryDirectory(prefix="measure-") as name,
        BuildPool(spec, workers=spec.threads) as builder,
        LocalRunner(threads=spec.threads) as runner,
    ):
        candidates = build_candidates(task, 2 * count, spec, builder, Path(name))
        rough, _ = time_adaptively(runner, candidates)
        kept = np.flatnonzero(rough <= _SLOWEST * rough.min())
        spread = kept[np.argsort(rough[kept])][np.linspace(0, len(kept) - 1, min(count, len(kept))).round().astype(int)]
        candidates = [candidates[index] for index in np.random.default_rng(0).permutation(spread)]
        adaptive, seconds = time_adaptively(runner, candidates)
        first, second = in_own_process(reference_us, candidates), in_own_process(reference_us, candidates)
        mean = (first + second) / 2
        best = [int(index) for index in np.argsort(mean)[:_BEST]]
        among_best, _ = time_adaptively(runner, [candidates[index] for index in best])
        default_s = in_own_process(default_seconds, candidates) / len(candidates)
    return {
        "task": task,
        "candidates": len(candidates),
        "range": round(float(mean.max() / mean.min()), 2),
        "tau": round(kendall_tau(adaptive, mean), 3),
        "tau_best": round(kendall_tau(among_best, mean[best]), 3),
        "references_tau_best": round(kendall_tau(first[best], second[best]), 3),
        "regret": round(float(mean[int(np.argmin(adaptive))] / mean.min() - 1), 4),
        "seconds_per_trial": round(seconds, 4),
        "default_seconds_per_trial": round(default_s, 4),
        "cost_ratio": round(seconds / default_s, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tasks", default="conv3x3,conv1x1,matmul")
    parser.add_argument("--candidates", type=int, default=60)
    arguments = parser.parse_args()
    os.environ.update(TVM_NUM_THREADS=str(host_target().threads), TVM_BIND_THREADS="0")
    rows = []
    for task in arguments.tasks.split(","):
        rows.append(measure(task, arguments.candidates))
        print(rows[-1], flush=True)
    keys = ("tau", "tau_best", "references_tau_best", "regret", "cost_ratio")
    print(json.dumps({key: statistics.median(row[key] for row in rows) for key in keys} | {"rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
