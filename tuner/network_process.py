"""The parent's side of `tuner.contender`: a network in a child process, with deadlines and honest errors."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import numpy as np

from tuner.errors import WorkerError
from tuner.spinning import wait_until_asleep

Sample = Mapping[str, np.ndarray]
Kind = Literal["tvm", "onnxruntime"]
CONTENDER = "tuner.contender"


class Program:
    """A child that obeys requests, one line of JSON each, and ends with its parent.

    ``load_s`` is what it says that loading took. Every method raises `WorkerError` when the child dies, answers an
    error, or misses its deadline.
    """

    def __init__(self, arguments: Sequence[str], *, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self.folder = tempfile.TemporaryDirectory(prefix="network-")
        self._errors = Path(self.folder.name) / "stderr"
        with self._errors.open("wb") as errors:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(environment or {}), "PYTHONPATH": path},
                # Unbuffered: closing a buffered pipe to a dead child raises again what could not be flushed.
                bufsize=0,
            )
        try:
            self.load_s = float(str(self._answer(timeout_s=300)["load_s"]))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._child.poll() is None:
            self._child.kill()
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        self.folder.cleanup()

    def rest(self) -> None:
        """Return when the child's threads sleep."""
        wait_until_asleep(self._child.pid)

    def ask(self, request: dict[str, object], *, timeout_s: float) -> dict[str, object]:
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._died() from None
        return self._answer(timeout_s=timeout_s)

    def _answer(self, *, timeout_s: float) -> dict[str, object]:
        assert self._child.stdout is not None
        descriptor = self._child.stdout.fileno()
        received = b""
        deadline = time.monotonic() + timeout_s
        while not received.endswith(b"\n"):
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not select.select([descriptor], [], [], remaining)[0]:
                raise WorkerError(f"{self.name} did not answer within {timeout_s:.0f} s.", code="network_timeout")
            part = os.read(descriptor, 1 << 20)
            if not part:
                raise self._died()
            received += part
        answer: dict[str, object] = json.loads(received)
        if "error" in answer:
            raise WorkerError(f"{self.name} could not be run: {answer['error']}", code="network_failed")
        return answer

    def _died(self) -> WorkerError:
        status = self._child.wait()
        printed = self._errors.read_text(errors="replace")[-1000:]
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return WorkerError(
            f"The process that ran {self.name} ended with {how}.", code="network_crashed", details={"stderr": printed}
        )


class RunnableNetwork(ABC):
    """A loaded network: a context manager that gives back what it takes.

    ``load_s`` is what loading took, ``first_run_us`` the latency of the first sample of the last `run`: cold, but good
    enough to tell how slow a network is.
    """

    name: str
    load_s: float
    first_run_us = 0.0

    @abstractmethod
    def _ask(self, request: dict[str, object], *, timeout_s: float) -> dict[str, object]: ...

    @property
    @abstractmethod
    def _folder(self) -> Path: ...

    @abstractmethod
    def close(self) -> None: ...

    @abstractmethod
    def rest(self) -> None:
        """Return when its threads sleep: they spin for a while after a run."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(
        self, samples: Sequence[Sample], inputs: Sequence[str], outputs: Sequence[str], *, timeout_s: float = 1800
    ) -> list[dict[str, np.ndarray]]:
        """Outputs by name, one dictionary a sample."""
        given = self._given(samples, inputs)
        taken = self._folder / "out.npz"
        answer = self._ask({"run": str(given), "to": str(taken)}, timeout_s=timeout_s)
        self.first_run_us = _numbers(answer)[0]
        with np.load(taken, allow_pickle=False) as returned:
            return [
                {name: returned[f"{sample}.{position}"] for position, name in enumerate(outputs)}
                for sample in range(len(samples))
            ]

    def time_us(self, runs: int, *, timeout_s: float = 1800) -> list[float]:
        """Latencies of single runs on the first sample that `run` was given last."""
        return _numbers(self._ask({"time": runs}, timeout_s=timeout_s))

    def peak_bytes(self, sample: Sample, inputs: Sequence[str], *, timeout_s: float = 1800) -> int | None:
        """The most memory that one run takes beside weights and inputs, None where nobody knows.

        Only of a network that was not run before; it is not to be timed afterwards (`tuner.high_water`).
        """
        answer = self._ask({"grow": str(self._given([sample], inputs))}, timeout_s=timeout_s)["bytes"]
        return answer if isinstance(answer, int) else None

    def best_us(self, name: str, shapes: Sequence[Sequence[int]], *, timeout_s: float = 60) -> float:
        """The shortest call of one of the module's own functions (`tuner.roofline_kernels`) in 0.2 s, with arguments of
        these shapes. Of compiled networks only, and not of those without an instrument."""
        answer = self._ask({"kernel": name, "shapes": [list(shape) for shape in shapes]}, timeout_s=timeout_s)
        return float(str(answer["best_us"]))

    def _given(self, samples: Sequence[Sample], inputs: Sequence[str]) -> Path:
        path = self._folder / "in.npz"
        arrays = {f"{s}.{p}": sample[name] for s, sample in enumerate(samples) for p, name in enumerate(inputs)}
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return path


class NetworkProcess(RunnableNetwork):
    """A network of this machine in a child of its own. ``program`` is the module that runs in the child:
    `tuner.contender`, or one that speaks its protocol."""

    def __init__(
        self, path: Path, *, kind: Kind, threads: int, name: str | None = None, program: str = CONTENDER
    ) -> None:
        self.name = name or path.name
        environment = {
            "TVM_NUM_THREADS": str(threads),
            # TVM's workers would pin themselves to cores by number, whatever else runs there.
            "TVM_BIND_THREADS": "0",
            "OMP_NUM_THREADS": str(threads),
        }
        arguments = [program, str(path), "--kind", kind, "--threads", str(threads)]
        self._program = Program(arguments, name=self.name, environment=environment)
        self.load_s = self._program.load_s

    def close(self) -> None:
        self._program.close()

    def rest(self) -> None:
        self._program.rest()

    @property
    def _folder(self) -> Path:
        return Path(self._program.folder.name)

    def _ask(self, request: dict[str, object], *, timeout_s: float) -> dict[str, object]:
        return self._program.ask(request, timeout_s=timeout_s)


def _numbers(answer: dict[str, object]) -> list[float]:
    latencies = answer["latency_us"]
    assert isinstance(latencies, list)
    return [float(value) for value in latencies]
