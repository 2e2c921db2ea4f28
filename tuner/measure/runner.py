"""The parent's side of measuring: one runner child at a time, under a watchdog of ours.

TVM's own timeout is a timer inside the worker, which a candidate that never yields blocks for ever; here the
parent waits for every answer with a deadline and kills the child when it passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tuner.errors import WorkerError
from tuner.measure.child import Child, usable_memory_bytes
from tuner.measure.jobs import Agreement, Built, Failure, Timed
from tuner.records import FailureKind

_TIMEOUT_S = 10.0
_ABORT_FACTOR = 2.5
# How far behind the best a candidate may be after each round and still be timed again, four times at most: two short
# runs are rarely a tenth above what eight would find, six hardly more than 4 %.
_CLEARLY_SLOWER = (1.1, 1.06, 1.04)


class ChildRunner:
    """A `Runner` whose child times candidates, as `tuner.measure.run_worker` does or speaking its protocol.

    A candidate that hangs is a `FailureKind.RUN_TIMEOUT`, one that crashes or raises a `FailureKind.RUN_ERROR`; the
    candidates that shared its child are loaded again into a fresh one and lose nothing but time. Where the child says
    that its device is gone (``("lost", message)``), the candidate is a `FailureKind.DEVICE_LOST`, and the runner
    ``is_lost``.
    """

    def __init__(self, start: Callable[[], Child], *, timeout_s: float = _TIMEOUT_S) -> None:
        self._start = start
        self._timeout_s = timeout_s
        self._child: Child | None = None
        self.is_lost = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def time(self, candidates: list[Built], *, best_us: float | None) -> list[Timed | Failure]:
        """Time candidates in interleaved rounds; the answers are in their order.

        ``best_us`` is the best latency known of their task. One whose first warm run takes 2.5 times as long keeps
        that time and runs no more; one that is clearly slower than the best after a round sits out the others.
        """
        answers = self.time_most(candidates, best_us=best_us)
        return [answers[index] for index in range(len(candidates))]

    def time_most(self, candidates: list[Built], *, best_us: float | None) -> dict[int, Timed | Failure]:
        """The same by index, without those that a device that got lost left over."""
        answers: dict[int, Timed | Failure] = {}
        while len(answers) < len(candidates) and not self.is_lost:
            left = [index for index in range(len(candidates)) if index not in answers]
            self._attempt(candidates, left, answers, best_us)
        return answers

    def agreement(
        self, library: Built, reference: Built, *, seed: int, timeout_s: float = 120.0
    ) -> Agreement | Failure:
        """Run both on the same seeded random inputs and compare every argument afterwards."""
        answer = self._ask(("agree", library, reference, seed), timeout_s=timeout_s)
        return answer if isinstance(answer, Failure) else answer[1]

    def _attempt(
        self, candidates: list[Built], indices: list[int], answers: dict[int, Timed | Failure], best_us: float | None
    ) -> None:
        """One pass over the unanswered candidates; it ends early when the child dies, with the culprit answered."""
        abort_above_us = best_us * _ABORT_FACTOR if best_us else None
        fastest_us: dict[int, float] = {}
        for index in indices:
            answer = self._answer(index, ("load", index, candidates[index], abort_above_us), answers)
            if self._child is None:
                return
            if answer is not None and index not in answers:
                fastest_us[index] = math.inf
        for factor in (math.inf, *_CLEARLY_SLOWER):
            limit_us = factor * min([*fastest_us.values(), best_us or math.inf], default=math.inf)
            fastest_us = {index: fastest for index, fastest in fastest_us.items() if fastest <= limit_us}
            for index in list(fastest_us):
                answer = self._answer(index, ("round", index), answers)
                if self._child is None:
                    return
                if answer is None:
                    del fastest_us[index]
                else:
                    fastest_us[index] = answer[2]
        for index in indices:
            if index not in answers:
                self._answer(index, ("finish", index), answers)
                if self._child is None:
                    return

    def _answer(self, index: int, request: tuple[Any, ...], answers: dict[int, Timed | Failure]) -> Any:
        """Ask about one candidate; a failure or a final timing is its answer. None when it failed."""
        answer = self._ask(request)
        if isinstance(answer, Failure):
            answers[index] = answer
            return None
        if answer[0] == "timed":
            answers[index] = answer[2]
        return answer

    def _ask(self, request: tuple[Any, ...], *, timeout_s: float | None = None) -> Any:
        """Send one request; a `Failure` when it raised (the child lives on), hung or crashed (it is gone)."""
        limit_s = timeout_s or self._timeout_s
        if self._child is None:
            self._child = self._start()
        child = self._child
        try:
            child.pipe.send(request)
            if not child.pipe.poll(limit_s):
                self.close()
                message = f"the candidate ran longer than {limit_s:g} s"
                return Failure(kind=FailureKind.RUN_TIMEOUT, message=message, cost_s=limit_s)
            answer = child.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            cause = child.cause_of_death()
            self.close()
            return Failure(kind=FailureKind.RUN_ERROR, message=f"the runner {cause}")
        except OSError as error:
            raise WorkerError(f"The runner's pipe failed: {error}") from error
        if answer[0] == "error":
            return Failure(kind=FailureKind.RUN_ERROR, message=answer[1])
        if answer[0] == "lost":
            self.close()
            return self._lost(answer[1])
        return answer

    def _lost(self, message: str) -> Failure:
        """What became of a candidate whose child has lost its device."""
        self.is_lost = True
        return Failure(kind=FailureKind.DEVICE_LOST, message=message)


class LocalRunner(ChildRunner):
    """A runner on this machine. ``serve`` replaces `tuner.measure.run_worker.serve`, for tests.

    A candidate that wants more than ``child_memory_bytes`` (by default half of the machine's memory) is a
    `FailureKind.RUN_ERROR`.
    """

    def __init__(
        self,
        *,
        threads: int,
        timeout_s: float = _TIMEOUT_S,
        serve: Callable[..., None] | None = None,
        child_memory_bytes: int | None = None,
    ) -> None:
        limit_bytes = child_memory_bytes or usable_memory_bytes() // 2
        super().__init__(lambda: Child(serve or _run_worker(), threads, memory_bytes=limit_bytes), timeout_s=timeout_s)


def _run_worker() -> Callable[..., None]:
    from tuner.measure.run_worker import serve  # loads TVM: not where only the watchdog is tested

    return serve
