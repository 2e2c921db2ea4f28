"""The child that times candidates. It is replaceable at any moment: candidates may crash it or hang in it.

How a batch is timed: every candidate is warmed up once and aborted there when it is far slower than the best known;
the survivors are then timed in interleaved rounds of short runs, those that are clearly slower leave after a round,
and each one's latency is the *minimum* over its rounds. On a shared machine drift dominates: interleaving spreads it
over all candidates, and the minimum of eight short runs reproduced reference timings within 3.4 % (median error)
where the median of eight reached 8 %.
"""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import tvm

from tuner.measure.jobs import Agreement, ArgumentSpec, Built, Timed

_REPEATS_PER_ROUND = 2
_MIN_REPEAT_US = 3_000.0
_LONG_RUN_US = 100_000.0


@dataclass
class _Candidate:
    module: Any
    symbol: str
    arguments: list[Any]
    once_us: float
    samples_us: list[float] = field(default_factory=list)
    cost_s: float = 0.0


def serve(pipe: Connection, threads: int) -> None:
    """Obey requests until the pipe closes.

    ``("load", index, Built, abort_above_us)`` answers ``("timed", index, Timed)`` when the candidate was
    aborted or ``("loaded", index)``; ``("round", index)`` times one round, answers ``("done", index, fastest_us)``;
    ``("finish", index)`` answers ``("timed", index, Timed)`` and forgets the candidate;
    ``("agree", Built, reference, seed)`` answers ``("agreement", Agreement)``.
    Errors answer ``("error", message)``.
    """
    os.environ["TVM_NUM_THREADS"] = str(threads)
    os.environ["TVM_BIND_THREADS"] = "0"
    inputs = _Inputs()
    candidates: dict[int, _Candidate] = {}
    while True:
        request = pipe.recv()
        try:
            pipe.send(_obey(request, candidates, inputs))
        except Exception as error:
            pipe.send(("error", f"{type(error).__name__}: {str(error).strip()[-500:]}"))


def _obey(request: tuple[Any, ...], candidates: dict[int, _Candidate], inputs: _Inputs) -> tuple[Any, ...]:
    match request:
        case ("load", int(index), Built() as built, abort_above_us):
            started = time.perf_counter()
            candidate = _load(built, inputs.get(built.arguments))
            candidate.cost_s = time.perf_counter() - started
            if abort_above_us is not None and candidate.once_us > abort_above_us:
                return "timed", index, Timed(latency_us=candidate.once_us, spread_us=0.0, cost_s=candidate.cost_s)
            candidates[index] = candidate
            return "loaded", index
        case ("round", int(index)):
            candidate = candidates[index]
            started = time.perf_counter()
            candidate.samples_us += _samples_us(candidate)
            candidate.cost_s += time.perf_counter() - started
            return "done", index, min(candidate.samples_us)
        case ("finish", int(index)):
            candidate = candidates.pop(index)
            best_us = min(candidate.samples_us)
            spread_us = statistics.median(candidate.samples_us) - best_us
            return "timed", index, Timed(latency_us=best_us, spread_us=spread_us, cost_s=candidate.cost_s)
        case ("agree", Built() as built, Built() as reference, int(seed)):
            return "agreement", _agreement(built, reference, seed)
    raise ValueError(f"unknown request {request[0]!r}")


def _load(built: Built, arguments: list[Any]) -> _Candidate:
    module = tvm.runtime.load_module(str(built.library))
    function = module[built.symbol]
    function(*arguments)
    started = time.perf_counter()
    function(*arguments)
    once_us = (time.perf_counter() - started) * 1e6
    return _Candidate(module=module, symbol=built.symbol, arguments=arguments, once_us=once_us)


def _samples_us(candidate: _Candidate) -> list[float]:
    repeats = _REPEATS_PER_ROUND if candidate.once_us < _LONG_RUN_US else 1
    number = max(1, round(_MIN_REPEAT_US / max(candidate.once_us, 0.1)))
    evaluator = candidate.module.time_evaluator(candidate.symbol, tvm.cpu(), number=number, repeat=repeats)
    return [seconds * 1e6 for seconds in evaluator(*candidate.arguments).results]


def _agreement(built: Built, reference: Built, seed: int) -> Agreement:
    rng = np.random.default_rng(seed)
    arrays = [_random(spec, rng) for spec in built.arguments]
    outputs = []
    for item in (built, reference):
        arguments = [tvm.runtime.tensor(array.copy()) for array in arrays]
        tvm.runtime.load_module(str(item.library))[item.symbol](*arguments)
        outputs.append([argument.numpy() for argument in arguments])
    worst_abs = worst_rel = 0.0
    for ours, theirs in zip(*outputs, strict=True):
        if not np.array_equal(np.isfinite(ours), np.isfinite(theirs)):
            return Agreement(max_abs_error=float("inf"), max_rel_error=float("inf"))
        difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64))
        difference = float(np.nanmax(difference, initial=0.0))
        scale = float(np.nanmax(np.abs(theirs.astype(np.float64)), initial=0.0))
        worst_abs = max(worst_abs, difference)
        worst_rel = max(worst_rel, difference / scale if scale else difference)
    return Agreement(max_abs_error=worst_abs, max_rel_error=worst_rel)


def _random(spec: ArgumentSpec, rng: np.random.Generator) -> Any:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(spec.shape, dtype=np.float32).astype(dtype)
    if dtype.kind == "b":
        return rng.random(spec.shape) < 0.5
    # Integers are as often indices as values: 0 and 1 are in range of nearly every axis.
    return rng.integers(0, 2, spec.shape).astype(dtype)


class _Inputs:
    """Random arguments, kept while the batch stays on one task: allocating them anew cost more than the runs."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ArgumentSpec], Any] = {}
        self._rng = np.random.default_rng(0)

    def get(self, specs: tuple[ArgumentSpec, ...]) -> list[Any]:
        keys = list(enumerate(specs))
        if len(self._kept) > 64:
            self._kept = {}
        for key in keys:
            if key not in self._kept:
                self._kept[key] = tvm.runtime.tensor(_random(key[1], self._rng))
        return [self._kept[key] for key in keys]
