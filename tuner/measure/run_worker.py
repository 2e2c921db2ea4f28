"""The child that times candidates. It is replaceable at any moment: candidates may crash it or hang in it.

How a batch is timed: every candidate is warmed up once and aborted there when it is far slower than the best known;
the survivors are then timed in interleaved rounds of short runs, those that are clearly slower leave after a round,
and each one's latency is the *minimum* over its rounds. On a shared machine drift dominates: interleaving spreads it
over all candidates, and the minimum of eight short runs reproduced reference timings within 3.4 % (median error)
where the median of eight reached 8 %.

What a run finds in the caches: its inputs, as in the network, where the function before has just written them; but not
its weights (`weights_not_in_cache`). A network has more of them than a core's caches hold, and each is read once.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import tvm

from tuner.measure.jobs import Agreement, ArgumentSpec, Built, Timed

_REPEATS_PER_ROUND = 2
_MIN_REPEAT_US = 3_000.0
_LONG_RUN_US = 100_000.0
# The reference of an agreement has run once, with nothing in the caches: of a run this long that is little.
_ONE_RUN_US = 20_000.0
# What is read again after the least has left the second-level caches of a few cores; beyond the most there is no cache.
_MIN_WEIGHT_BYTES, _MAX_WEIGHT_BYTES = 16 * 2**20, 512 * 2**20
_MAX_COPIES = 256
_PAGE_BYTES = 4096


@dataclass
class _Candidate:
    module: Any
    symbol: str
    argument_sets: ArgumentSets
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
    inputs = Inputs()
    candidates: dict[int, _Candidate] = {}
    while True:
        request = pipe.recv()
        try:
            pipe.send(_obey(request, candidates, inputs))
        except Exception as error:
            pipe.send(("error", f"{type(error).__name__}: {str(error).strip()[-500:]}"))


def _obey(request: tuple[Any, ...], candidates: dict[int, _Candidate], inputs: Inputs) -> tuple[Any, ...]:
    match request:
        case ("load", int(index), Built() as built, abort_above_us):
            started = time.perf_counter()
            candidate = _load(built, inputs.get(built.arguments, network_weight_bytes=built.network_weight_bytes))
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
            return "agreement", _agreement(built, reference, seed, inputs)
    raise ValueError(f"unknown request {request[0]!r}")


def _load(built: Built, argument_sets: ArgumentSets) -> _Candidate:
    module = tvm.runtime.load_module(str(built.library))
    function = module[built.symbol]
    first, second = argument_sets.next(2)
    function(*first)
    started = time.perf_counter()
    function(*second)
    once_us = (time.perf_counter() - started) * 1e6
    return _Candidate(module=module, symbol=built.symbol, argument_sets=argument_sets, once_us=once_us)


def _samples_us(candidate: _Candidate) -> list[float]:
    repeats = _REPEATS_PER_ROUND if candidate.once_us < _LONG_RUN_US else 1
    number = max(1, round(_MIN_REPEAT_US / max(candidate.once_us, 0.1)))
    return [run_us(candidate.module, candidate.symbol, candidate.argument_sets, number) for _ in range(repeats)]


def run_us(module: Any, symbol: str, argument_sets: ArgumentSets, number: int) -> float:
    """The mean latency of ``number`` runs, each with the next argument set.

    With one set, TVM's own loop; with several a loop of ours, which adds 0.15 µs to a run.
    """
    if len(argument_sets) == 1:
        evaluator = module.time_evaluator(symbol, tvm.cpu(), number=number, repeat=1)
        return float(evaluator(*argument_sets.next(1)[0]).results[0] * 1e6)
    function = module[symbol]
    first, *calls = argument_sets.next(1 + number)
    function(*first)
    started = time.perf_counter()
    for arguments in calls:
        function(*arguments)
    return (time.perf_counter() - started) * 1e6 / number


def _agreement(built: Built, reference: Built, seed: int, inputs: Inputs) -> Agreement:
    arrays = random_arrays(built.arguments, seed)
    outputs: list[list[Any]] = []
    once_us = 0.0
    for item in (built, reference):
        arguments = [tvm.runtime.tensor(array.copy()) for array in arrays]
        function = tvm.runtime.load_module(str(item.library))[item.symbol]
        started = time.perf_counter()
        function(*arguments)
        once_us = (time.perf_counter() - started) * 1e6
        outputs.append([argument.numpy() for argument in arguments])
    found = compared(*outputs)
    return replace(found, reference_us=_reference_us(reference, once_us, inputs))


def _reference_us(reference: Built, once_us: float, inputs: Inputs) -> float | None:
    """Like a candidate, unless it took so long that one run will do."""
    if once_us >= _ONE_RUN_US:
        return once_us
    try:
        arguments = inputs.get(reference.arguments, network_weight_bytes=reference.network_weight_bytes)
        return min(_samples_us(_load(reference, arguments)))
    except Exception:  # what was asked for is the agreement
        return None


def random_arrays(specs: tuple[ArgumentSpec, ...], seed: int) -> list[Any]:
    """Seeded random values of all arguments, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    return [_random(spec, rng) for spec in specs]


def compared(first: list[Any], second: list[Any]) -> Agreement:
    """How far the arguments of two runs lie apart."""
    worst_abs = worst_rel = 0.0
    for ours, theirs in zip(first, second, strict=True):
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


class ArgumentSets:
    """Arguments of a function, the same inputs and outputs with other copies of the weights; handed out in turns."""

    def __init__(self, sets: list[list[Any]], *, start: int) -> None:
        self._sets = sets
        self._turns = itertools.cycle(sets)
        for _ in range(start % len(sets)):
            next(self._turns)

    def __len__(self) -> int:
        return len(self._sets)

    def next(self, count: int) -> list[list[Any]]:
        return list(itertools.islice(self._turns, count))


class Inputs:
    """Random arguments, kept while the batch stays on one task: allocating them anew cost more than the runs.

    Weights are read from as much memory as the weights of the network take, in turns: as far apart in time as there.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ArgumentSpec], Any] = {}
        self._rng = np.random.default_rng(0)
        self._pool = _pool(_MIN_WEIGHT_BYTES, self._rng)
        self._given = 0

    def get(self, specs: tuple[ArgumentSpec, ...], *, network_weight_bytes: int) -> ArgumentSets:
        if len(self._kept) > 64:
            self._kept = {}
        size = min(max(network_weight_bytes, _MIN_WEIGHT_BYTES), _MAX_WEIGHT_BYTES)
        if size > self._pool.nbytes:
            self._pool = _pool(size, self._rng)
        pool = self._pool[: size // self._pool.itemsize]
        copies = [
            self._copies(spec, pool) if spec.is_weight else [self._one(index, spec)] for index, spec in enumerate(specs)
        ]
        count = max(map(len, copies), default=1)
        # Every candidate begins elsewhere: what the one before it has just read is in the cache.
        self._given += 1
        sets = [[each[number % len(each)] for each in copies] for number in range(count)]
        return ArgumentSets(sets, start=7 * self._given)

    def _one(self, index: int, spec: ArgumentSpec) -> Any:
        key = (index, spec)
        if key not in self._kept:
            self._kept[key] = tvm.runtime.tensor(_random(spec, self._rng))
        return self._kept[key]

    def _copies(self, spec: ArgumentSpec, pool: Any) -> list[Any]:
        """Views of the pool, as many as fit: schedules want their weights in shapes of their own, and writing megabytes
        of them for each candidate would cost more than running it."""
        elements, dtype = math.prod(spec.shape), np.dtype(spec.dtype)
        step = -(-elements * dtype.itemsize // _PAGE_BYTES) * _PAGE_BYTES // dtype.itemsize
        if dtype != pool.dtype or not 0 < step <= len(pool):
            return [self._one(-1, spec)]
        count = min(len(pool) // step, _MAX_COPIES)
        # Spread over the whole pool, in steps of whole pages.
        step *= len(pool) // step // count
        starts = range(0, count * step, step)
        return [tvm.runtime.from_dlpack(pool[start : start + elements].reshape(spec.shape)) for start in starts]


def _pool(size_bytes: int, rng: np.random.Generator) -> Any:
    """Random float32 numbers in memory of TVM's alignment; a mebibyte of them over and over."""
    block = rng.standard_normal(2**18, dtype=np.float32)
    pool = np.from_dlpack(tvm.runtime.empty((-(-size_bytes // block.nbytes) * len(block),), "float32"))
    pool.reshape(-1, len(block))[:] = block
    return pool
