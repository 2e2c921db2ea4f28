"""The child that times candidates on a board, over TVM's RPC. It speaks the protocol of `tuner.measure.run_worker`.

A session lasts for one batch. Only what the RPC server itself can do is asked of the board, so that it needs nothing of
ours: candidates are uploaded, loaded, and timed by TVM's evaluator, which empties the caches of all arguments but the
first before every run. What a session cannot do any more, because the connection is gone, is answered with
``("lost", message)``: the board is gone, or the candidate took the server's process with it.
"""

from __future__ import annotations

import itertools
import statistics
import time
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import tvm
from tvm import rpc

from tuner.measure.jobs import Agreement, ArgumentSpec, Built, Timed
from tuner.measure.run_worker import compared, random_arrays

_ROUND_US = 6_000.0
_MAX_RUNS = 40
# The reference of an agreement is timed from here where it is long: the way to the board and back is little then.
_ONE_RUN_US = 200_000.0
_REFERENCE_RUNS = 2
_COLD = "cache_flush_cpu_non_first_arg"


@dataclass(kw_only=True)
class _Candidate:
    module: Any
    symbol: str
    file: str
    arguments: list[Any]
    once_us: float
    samples_us: list[float] = field(default_factory=list)
    cost_s: float = 0.0


def serve(pipe: Connection, host: str, port: int, match_key: str, session_s: int) -> None:
    """Obey requests until the pipe closes, or the board is lost."""
    board: _Board | None = None
    while True:
        request = pipe.recv()
        try:
            board = board or _Board(host, port, match_key, session_s)
            answer = board.obey(request)
        except Exception as error:
            message = f"{type(error).__name__}: {str(error).strip()[-500:]}"
            answer = ("error", message) if board is not None and board.answers() else ("lost", message)
        pipe.send(answer)


class _Board:
    def __init__(self, host: str, port: int, match_key: str, session_s: int) -> None:
        self._session = rpc.connect(host, port, match_key, session_timeout=session_s)
        self._device = self._session.cpu(0)
        self._files = (f"candidate-{number}.so" for number in itertools.count())
        self._candidates: dict[int, _Candidate] = {}
        self._arguments: dict[tuple[int, ArgumentSpec], Any] = {}

    def answers(self) -> bool:
        """Whether the session is there."""
        try:
            self._session.get_function("tvm.rpc.server.workpath")("")
        except Exception:
            return False
        return True

    def obey(self, request: tuple[Any, ...]) -> tuple[Any, ...]:
        match request:
            case ("load", int(index), Built() as built, abort_above_us):
                started = time.perf_counter()
                candidate = self._load(built)
                candidate.cost_s = time.perf_counter() - started
                if abort_above_us is not None and candidate.once_us > abort_above_us:
                    self._session.remove(candidate.file)
                    return "timed", index, Timed(latency_us=candidate.once_us, spread_us=0.0, cost_s=candidate.cost_s)
                self._candidates[index] = candidate
                return "loaded", index
            case ("round", int(index)):
                candidate = self._candidates[index]
                started = time.perf_counter()
                candidate.samples_us += self._samples_us(candidate)
                candidate.cost_s += time.perf_counter() - started
                return "done", index, min(candidate.samples_us)
            case ("finish", int(index)):
                candidate = self._candidates.pop(index)
                self._session.remove(candidate.file)
                best_us = min(candidate.samples_us)
                spread_us = statistics.median(candidate.samples_us) - best_us
                return "timed", index, Timed(latency_us=best_us, spread_us=spread_us, cost_s=candidate.cost_s)
            case ("agree", Built() as built, Built() as reference, int(seed)):
                return "agreement", self._agreement(built, reference, seed)
        raise ValueError(f"unknown request {request[0]!r}")

    def _load(self, built: Built) -> _Candidate:
        file, module = self._uploaded(built.library)
        arguments = [self._argument(index, spec) for index, spec in enumerate(built.arguments)]
        # The evaluator runs it once before it looks at the clock.
        once = module.time_evaluator(built.symbol, self._device, number=1, repeat=1)(*arguments)
        once_us = float(once.results[0]) * 1e6
        return _Candidate(module=module, symbol=built.symbol, file=file, arguments=arguments, once_us=once_us)

    def _samples_us(self, candidate: _Candidate) -> list[float]:
        """Two samples: the means of half of the runs each."""
        half = max(1, min(_MAX_RUNS // 2, round(_ROUND_US / 2 / max(candidate.once_us, 0.1))))
        evaluator = candidate.module.time_evaluator(
            candidate.symbol, self._device, number=1, repeat=2 * half, f_preproc=_COLD
        )
        runs_us = [float(seconds) * 1e6 for seconds in evaluator(*candidate.arguments).results]
        return [statistics.fmean(runs_us[:half]), statistics.fmean(runs_us[half:])]

    def _agreement(self, built: Built, reference: Built, seed: int) -> Agreement:
        arrays = random_arrays(built.arguments, seed)
        outputs: list[list[Any]] = []
        reference_us: float | None = None
        for item in (built, reference):
            file, module = self._uploaded(item.library)
            arguments = [tvm.runtime.tensor(array, device=self._device) for array in arrays]
            started = time.perf_counter()
            module[item.symbol](*arguments)
            once_us = (time.perf_counter() - started) * 1e6
            outputs.append([argument.numpy() for argument in arguments])
            if item is reference:
                reference_us = self._reference_us(module, item.symbol, arguments, once_us)
            self._session.remove(file)
        return replace(compared(*outputs), reference_us=reference_us)

    def _reference_us(self, module: Any, symbol: str, arguments: list[Any], once_us: float) -> float | None:
        """By the board's own clock, unless it took so long that one run seen from here will do."""
        if once_us >= _ONE_RUN_US:
            return once_us
        try:
            evaluator = module.time_evaluator(symbol, self._device, number=1, repeat=_REFERENCE_RUNS, f_preproc=_COLD)
            return float(min(evaluator(*arguments).results)) * 1e6
        except Exception:  # what was asked for is the agreement
            return None

    def _uploaded(self, library: Path) -> tuple[str, Any]:
        file = next(self._files)
        self._session.upload(str(library), target=file)
        return file, self._session.load_module(file)

    def _argument(self, index: int, spec: ArgumentSpec) -> Any:
        """Random values on the board, kept while the session lasts."""
        key = (index, spec)
        if key not in self._arguments:
            (array,) = random_arrays((spec,), seed=index)
            self._arguments[key] = tvm.runtime.tensor(array, device=self._device)
        return self._arguments[key]
