"""The gate and the compiler, warm: TVM is imported once, and every case runs in a fork with limits of its own.

It is the way of a model behind ``POST /models/{id}/check``, without the two seconds that a new process takes. Whatever
becomes of the fork is an answer, as it is for the service: a refusal, a crash, too much memory or too much time.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import IO, Any

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 3 * 1024**3
TIME_LIMIT_S = 30.0
# Nothing is to be written at all; what goes to standard error is kept in memory.
_WRITES_BYTES = 64 * 1024**2
_TAIL_BYTES = 4000
_STARTS_WITHIN_S = 120.0
# Threads that a fork does not inherit would be waited for.
_ENVIRONMENT = {"TVM_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Kind(StrEnum):
    ACCEPTED = "accepted"
    REFUSED = "refused"
    CRASHED = "crashed"
    OUT_OF_MEMORY = "out of memory"
    TIMED_OUT = "timed out"
    # A fault of ours: something was raised that is no refusal, or a file was written.
    FAULT = "fault"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case. ``code`` is that of a refusal, or the signal of a crash; ``reached_compiler`` says that
    the gate let it pass; ``peak_bytes`` is what was resident at most."""

    kind: Kind
    code: str = ""
    detail: str = ""
    reached_compiler: bool = False
    peak_bytes: int = 0


class Gate:
    """The warm process, as its user sees it; a context manager. Not for several threads."""

    def __init__(self, *, time_limit_s: float = TIME_LIMIT_S, memory_bytes: int = MEMORY_BYTES) -> None:
        self._arguments = [str(time_limit_s), str(memory_bytes)]
        self._deadline_s = time_limit_s + 30.0

    def __enter__(self) -> Gate:
        self._folder = tempfile.TemporaryDirectory(prefix="tessera-fuzz-")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.gate_process", *self._arguments],
            cwd=ROOT,
            env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._read(_STARTS_WITHIN_S)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()
        try:
            self._process.wait(self._deadline_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._folder.cleanup()

    def answer(self, content: bytes, *, behaviour: str = "check") -> Outcome:
        """What becomes of a file with that content; ``behaviour`` replaces the check, for tests of this process."""
        path = Path(self._folder.name) / "model.onnx"
        path.write_bytes(content)
        self._stdin.write(json.dumps({"path": str(path), "behaviour": behaviour}) + "\n")
        self._stdin.flush()
        answer = self._read(self._deadline_s)
        return Outcome(**{**answer, "kind": Kind(answer["kind"])})

    @property
    def _stdin(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _read(self, within_s: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], within_s)
        line = self._process.stdout.readline() if ready else ""
        assert line, f"the gate process died ({self._process.poll()}) or says nothing"
        answer: dict[str, Any] = json.loads(line)
        return answer


def main() -> int:
    """Serve one case a line of standard input, until it ends."""
    time_limit_s, memory_bytes = float(sys.argv[1]), int(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _warm_up()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        outcome = _run(Path(asked["path"]), asked["behaviour"], time_limit_s=time_limit_s, memory_bytes=memory_bytes)
        print(json.dumps(outcome), file=answers, flush=True)
    return 0


def _warm_up() -> None:
    """Everything that a check loads, loaded before the first fork."""
    from tests.fuzz.seeds import seeds
    from tuner.frontend.preflight import check_model
    from tuner.targets import host_target

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for name in ("convolutional", "constants"):
            path.write_bytes(seeds()[name])
            check_model(path, {}, host_target())


def _run(path: Path, behaviour: str, *, time_limit_s: float, memory_bytes: int) -> dict[str, Any]:
    before = sorted(path.parent.rglob("*"))
    reader, writer = os.pipe()
    errors = os.memfd_create("errors")
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            _limit(time_limit_s, memory_bytes)
            os.dup2(errors, 1)
            os.dup2(errors, 2)
            os.chdir(path.parent)
            with os.fdopen(writer, "w") as told:
                _answer(path, behaviour, told)
        finally:
            os._exit(0)
    os.close(writer)
    in_time = _wait_for_end(reader, time_limit_s)
    if not in_time:
        os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    with os.fdopen(reader, "rb") as told_by_child:
        lines = told_by_child.read().splitlines() if in_time else []
    tail = os.pread(errors, _TAIL_BYTES, max(0, os.fstat(errors).st_size - _TAIL_BYTES)).decode(errors="replace")
    os.close(errors)
    outcome = _outcome(lines, status, tail, in_time=in_time)
    outcome["peak_bytes"] = usage.ru_maxrss * 1024
    if sorted(path.parent.rglob("*")) != before:
        outcome |= {"kind": Kind.FAULT, "detail": f"files were written: {sorted(path.parent.rglob('*'))}"}
    return outcome


def _limit(time_limit_s: float, memory_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (int(time_limit_s), int(time_limit_s) + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_WRITES_BYTES, _WRITES_BYTES))


def _answer(path: Path, behaviour: str, told: IO[str]) -> None:
    """Run the case and write, a line each: that it reached the compiler, and how it ended."""
    from tuner.errors import TesseraError

    try:
        _BEHAVIOURS[behaviour](path, told)
        answer = {"kind": Kind.ACCEPTED}
    except TesseraError as error:
        kind = Kind.REFUSED if error.message and error.hint else Kind.FAULT
        answer = {"kind": kind, "code": error.code, "detail": error.message[:_TAIL_BYTES]}
    except MemoryError:
        answer = {"kind": Kind.OUT_OF_MEMORY}
    except BaseException:
        answer = {"kind": Kind.FAULT, "detail": traceback.format_exc()[-_TAIL_BYTES:]}
    told.write(json.dumps(answer) + "\n")


def _check(path: Path, told: IO[str]) -> None:
    from tuner.frontend.preflight import check_model, prepare_model
    from tuner.targets import host_target

    prepare_model(path, {})
    told.write("{}\n")
    told.flush()
    check_model(path, {}, host_target())


def _be_killed(path: Path, told: IO[str]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _be_slow(path: Path, told: IO[str]) -> None:
    signal.pause()


def _be_busy(path: Path, told: IO[str]) -> None:
    while True:
        pass


def _be_greedy(path: Path, told: IO[str]) -> None:
    bytearray(2**40)


def _be_wrong(path: Path, told: IO[str]) -> None:
    raise KeyError("nobody thought of this")


def _write(path: Path, told: IO[str]) -> None:
    path.with_name("left").touch()


_BEHAVIOURS = {
    "check": _check,
    "be killed": _be_killed,
    "be slow": _be_slow,
    "be busy": _be_busy,
    "be greedy": _be_greedy,
    "be wrong": _be_wrong,
    "write": _write,
}


def _wait_for_end(reader: int, time_limit_s: float) -> bool:
    """Whether the child closed its end in time; what it wrote fits the pipe and stays in it."""
    poll, ends_at = select.poll(), time.monotonic() + time_limit_s
    poll.register(reader, select.POLLHUP)
    while (left_s := ends_at - time.monotonic()) > 0:
        if any(event & select.POLLHUP for _, event in poll.poll(left_s * 1000)):
            return True
    return False


def _outcome(lines: list[bytes], status: int, tail: str, *, in_time: bool) -> dict[str, Any]:
    reached = bool(lines) and lines[0] == b"{}"
    last = json.loads(lines[-1]) if lines and lines[-1] != b"{}" else None
    if not in_time:
        answer = {"kind": Kind.TIMED_OUT}
    elif last is not None:
        answer = last
    elif os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        answer = {"kind": Kind.CRASHED, "code": name, "detail": tail}
        if name == "SIGXCPU":
            answer = {"kind": Kind.TIMED_OUT}
        elif name == "SIGKILL" or "bad_alloc" in tail:
            answer = {"kind": Kind.OUT_OF_MEMORY, "code": name}
    else:
        answer = {"kind": Kind.CRASHED, "code": f"exit {os.waitstatus_to_exitcode(status)}", "detail": tail}
    return {"code": "", "detail": "", **answer, "reached_compiler": reached}


if __name__ == "__main__":
    sys.exit(main())
