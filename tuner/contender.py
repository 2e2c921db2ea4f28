"""``python -m tuner.contender``: one network in a process of its own, run and timed on request.

A compiled module can crash, and engines' threads go on spinning after a run (`tuner.spinning`): each network gets its
own process, and only one is active at a time. Every engine keeps its default spinning, so that it is timed at its best.

Requests are lines of JSON on standard input, answers lines of JSON on the original standard output (whatever native
code prints goes to standard error):

``{"run": IN.npz, "to": OUT.npz}``: runs every sample, arrays are named ``{sample}.{position}``; answers like ``time``
``{"time": runs}``: times single runs on the first sample of the last ``run``; answers ``{"latency_us": [...]}``
``{"grow": IN.npz}``: runs the first sample; answers ``{"bytes": growth}`` (`tuner.high_water`), null where unknown.
Only for a network that was not run before, and is not timed afterwards.
``{"kernel": NAME, "shapes": [[…], …]}``: the shortest call in 0.2 s of one of the module's own functions on fp32
arguments, of a compiled network only; answers ``{"best_us": latency}``
``{"error": message}`` answers a request that failed.

Benchmarks time other engines by the same protocol: a program of theirs hands its `Network` to `serve`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tuner.high_water import growth_bytes

_PR_SET_PDEATHSIG = 1


class Network:
    """A loaded network: ``prepare`` keeps inputs in the network's own form, ``launch`` runs them, ``fetch`` copies."""

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        raise NotImplementedError

    def launch(self, prepared: Any) -> Any:
        raise NotImplementedError

    def fetch(self, returned: Any) -> list[np.ndarray]:
        raise NotImplementedError

    def time_us(self, prepared: Any, runs: int) -> list[float]:
        """The latencies of single runs."""
        latencies = []
        for _ in range(runs):
            started = time.perf_counter()
            self.launch(prepared)
            latencies.append((time.perf_counter() - started) * 1e6)
        return latencies

    def best_us(self, name: str, shapes: Sequence[Sequence[int]]) -> float:
        """The shortest call of one of its own functions (`tuner.roofline_kernels`)."""
        raise NotImplementedError


class _Compiled(Network):
    def __init__(self, path: str) -> None:
        os.environ["TVM_USE_RUNTIME_LIB"] = "1"
        import tvm
        from tvm.runtime import load_module, tensor
        from tvm.runtime.vm import VirtualMachine

        self._module = load_module(path)
        self._main = VirtualMachine(self._module, tvm.cpu())["main"]
        self._tensor = tensor

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return [self._tensor(array) for array in arrays]

    def launch(self, prepared: Any) -> Any:
        return self._main(*prepared)

    def fetch(self, returned: Any) -> list[np.ndarray]:
        outputs = [returned] if hasattr(returned, "numpy") else list(returned)
        return [output.numpy() for output in outputs]

    def best_us(self, name: str, shapes: Sequence[Sequence[int]]) -> float:
        arguments = [self._tensor(np.ones(shape, dtype=np.float32)) for shape in shapes]
        timer = self._module.get_function("tessera_profile_best_us", query_imports=True)
        return float(timer(self._module, name, *arguments))


class _OnnxRuntime(Network):
    def __init__(self, path: str, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [value.name for value in self._session.get_inputs()]

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return dict(zip(self._names, arrays, strict=True))

    def launch(self, prepared: Any) -> Any:
        return self._session.run(None, prepared)

    def fetch(self, returned: Any) -> list[np.ndarray]:
        return [np.asarray(output) for output in returned]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tuner.contender")
    parser.add_argument("path")
    parser.add_argument("--kind", choices=["tvm", "onnxruntime"], required=True)
    parser.add_argument("--threads", type=int, required=True)
    given = parser.parse_args()
    return serve(lambda: _Compiled(given.path) if given.kind == "tvm" else _OnnxRuntime(given.path, given.threads))


def serve(load: Callable[[], Network]) -> int:
    """Load a network, imports included, and answer requests until standard input closes; returns the exit status."""
    die_with_parent()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        started = time.perf_counter()
        network = load()
        answers.write(json.dumps({"load_s": time.perf_counter() - started}) + "\n")
    except Exception as error:
        answers.write(json.dumps({"error": shown(error)}) + "\n")
        return 1
    prepared: list[Any] = []
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer: dict[str, object]
            if "run" in request:
                prepared = prepare_samples(network, request["run"])
                answer = {"latency_us": run_samples(network, prepared, request["to"])}
            elif "grow" in request:
                first, *_ = prepare_samples(network, request["grow"])
                answer = {"bytes": growth_bytes(partial(network.launch, first))}
            elif "kernel" in request:
                answer = {"best_us": network.best_us(request["kernel"], request["shapes"])}
            else:
                answer = {"latency_us": network.time_us(prepared[0], request["time"])}
        except Exception as error:
            answer = {"error": shown(error)}
        answers.write(json.dumps(answer) + "\n")
    return 0


def die_with_parent() -> None:
    """A job that is killed must not leave a network running; without prctl, the closed pipe ends it a run later."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def prepare_samples(network: Network, path: str) -> list[Any]:
    """Every sample of a file in the network's own form."""
    with np.load(path, allow_pickle=False) as given:
        arrays = {name: given[name] for name in given.files}
    samples = 1 + max(int(name.partition(".")[0]) for name in arrays)
    positions = len(arrays) // samples
    return [network.prepare([arrays[f"{s}.{p}"] for p in range(positions)]) for s in range(samples)]


def run_samples(network: Network, prepared: list[Any], path: str) -> list[float]:
    """Run every sample and write the outputs; how long each took, in µs."""
    outputs: dict[str, Any] = {}
    latencies = []
    for sample, arguments in enumerate(prepared):
        started = time.perf_counter()
        returned = network.launch(arguments)
        latencies.append((time.perf_counter() - started) * 1e6)
        for position, array in enumerate(network.fetch(returned)):
            outputs[f"{sample}.{position}"] = array
    np.savez(path, **outputs)
    return latencies


def shown(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[-800:]}"


if __name__ == "__main__":
    sys.exit(main())
