"""``python -m tuner.board_contender TRACKER KEY``: networks on one board of a fleet, run and timed on request.

All networks of a job are in one session with one board, so that they can be timed in turns. Requests and answers are
those of `tuner.contender`, with the network that they are for: ``{"network": PATH, "load": true}`` uploads a module
and loads it there (answers ``{"load_s": …}``), ``{"network": PATH, "unload": true}`` forgets it. Runs are timed on the
board by TVM's evaluator, each for itself: the way there and back is not in them.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuner.contender import Network, die_with_parent, prepare_samples, run_samples, shown
from tuner.measure.tracker import Tracker

_SESSION_S = 3600
_RESERVED_WITHIN_S = 240.0
_MOST_SENT = 1 << 18


class BoardSession:
    """A session with one board of a key, for as long as this lives."""

    def __init__(self, tracker: Tracker, key: str) -> None:
        import tvm
        from tvm import rpc

        lease = tracker.request(key, timeout_s=_RESERVED_WITHIN_S)
        if lease is None:
            raise RuntimeError(f"no board of {key} was free within {_RESERVED_WITHIN_S:.0f} s")
        self.tvm = tvm
        self.session = rpc.connect(lease.board.host, lease.board.port, lease.match_key, session_timeout=_SESSION_S)
        self.device = self.session.cpu(0)


class _BoardNetwork(Network):
    def __init__(self, board: BoardSession, path: Path) -> None:
        from tvm.runtime.vm import VirtualMachine

        self._board = board
        self.file = path.name
        board.session.upload(str(path), target=self.file)
        self._module = board.session.load_module(self.file)
        self._machine = VirtualMachine(self._module, board.device)
        self.prepared: list[Any] = []

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return [self._board.tvm.runtime.tensor(array, device=self._board.device) for array in arrays]

    def launch(self, prepared: Any) -> Any:
        self._machine.set_input("main", *prepared)
        self._machine.invoke_stateful("main")
        return self._machine.get_outputs("main")

    def fetch(self, returned: Any) -> list[np.ndarray]:
        outputs = [returned] if hasattr(returned, "numpy") else list(returned)
        return [output.numpy() for output in outputs]

    def time_us(self, prepared: Any, runs: int) -> list[float]:
        self._machine.set_input("main", *prepared)
        evaluator = self._machine.time_evaluator("invoke_stateful", self._board.device, number=1, repeat=runs)
        return [float(seconds) * 1e6 for seconds in evaluator("main").results]

    def best_us(self, name: str, shapes: Sequence[Sequence[int]]) -> float:
        timer = self._module.get_function("tessera_profile_best_us", query_imports=True)
        return float(timer(self._module, name, *map(self._argument, shapes)))

    def _argument(self, shape: Sequence[int]) -> Any:
        """Fp32 numbers on the board; many are not sent there. Memory must have been written before it is read: until
        then all of it is one page of zeros, which is in the cache."""
        tvm, device = self._board.tvm, self._board.device
        if math.prod(shape) <= _MOST_SENT:
            return tvm.runtime.tensor(np.ones(shape, dtype=np.float32), device=device)
        written, source = (tvm.runtime.empty(tuple(shape), "float32", device) for _ in range(2))
        source.copyto(written)
        return written


def main(arguments: list[str] | None = None) -> int:
    tracker, key = sys.argv[1:] if arguments is None else arguments
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        started = time.perf_counter()
        board = BoardSession(Tracker.parse(tracker), key)
        answers.write(json.dumps({"load_s": time.perf_counter() - started}) + "\n")
    except Exception as error:
        answers.write(json.dumps({"error": shown(error)}) + "\n")
        return 1
    networks: dict[str, _BoardNetwork] = {}
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), board, networks)
        except Exception as error:
            answer = {"error": shown(error)}
        answers.write(json.dumps(answer) + "\n")
    return 0


def _answer(request: dict[str, Any], board: BoardSession, networks: dict[str, _BoardNetwork]) -> dict[str, object]:
    path = request["network"]
    if "load" in request:
        started = time.perf_counter()
        networks[path] = _BoardNetwork(board, Path(path))
        return {"load_s": time.perf_counter() - started}
    network = networks[path]
    if "unload" in request:
        del networks[path]
        board.session.remove(network.file)
        return {}
    if "run" in request:
        network.prepared = prepare_samples(network, request["run"])
        return {"latency_us": run_samples(network, network.prepared, request["to"])}
    if "kernel" in request:
        return {"best_us": network.best_us(request["kernel"], request["shapes"])}
    return {"latency_us": network.time_us(network.prepared[0], request["time"])}


if __name__ == "__main__":
    sys.exit(main())
