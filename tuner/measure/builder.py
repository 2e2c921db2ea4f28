"""The parent's side of building: a pool of workers that live as long as the job, each under a watchdog."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from tuner.measure.child import Child
from tuner.measure.jobs import BuildJob, Built, Failure, TaskSource
from tuner.records import FailureKind
from tuner.targets import TargetSpec

# LLVM and TVM keep a little memory of every build: a worker is replaced (a fork, milliseconds) after this many.
_BUILDS_PER_WORKER = 100
_TIMEOUT_S = 20.0


class BuildPool:
    """A `Builder` with one worker per core.

    A build that hangs is killed after ``timeout_s`` (`FailureKind.BUILD_TIMEOUT`), one that crashes its worker
    is a `FailureKind.BUILD_ERROR`; either way a fresh worker is forked and the others never notice.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        workers: int,
        timeout_s: float = _TIMEOUT_S,
        serve: Callable[..., None] | None = None,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._serve = serve
        self._workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        return _Worker(Child(self._serve or _build_worker(), self._target.tvm, self._target.triple))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.child.kill()
        self._workers = []

    def build(self, jobs: list[BuildJob], *, timeout_s: float | None = None) -> list[Built | Failure]:
        """Build every job; the answers are in the order of the jobs."""
        limit_s = timeout_s or self._timeout_s
        answers: dict[int, Built | Failure] = {}
        waiting = deque(enumerate(jobs))
        while len(answers) < len(jobs):
            for slot, worker in enumerate(self._workers):
                if worker.job is None and waiting:
                    if worker.builds >= _BUILDS_PER_WORKER:
                        worker.child.kill()
                        worker = self._workers[slot] = self._start()
                    worker.send(*waiting.popleft(), limit_s)
            busy = [worker for worker in self._workers if worker.job is not None]
            nearest = min(worker.deadline for worker in busy)
            ready = wait([worker.child.pipe for worker in busy], timeout=max(0.0, nearest - time.monotonic()))
            for slot, worker in enumerate(self._workers):
                index = worker.job
                if index is None:
                    continue
                if worker.child.pipe in ready:
                    answers[index] = worker.receive()
                elif time.monotonic() >= worker.deadline:
                    answers[index] = worker.give_up(limit_s)
                if worker.broken:
                    self._workers[slot] = self._start()
        return [answers[index] for index in range(len(jobs))]


class _Worker:
    """One child, the tasks that it already has, and the job that it is on (None when idle)."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.builds = 0
        self.job: int | None = None
        self.deadline = 0.0
        self.broken = False
        self._known: set[str] = set()

    def send(self, index: int, job: BuildJob, limit_s: float) -> None:
        if job.task.key in self._known:
            job = replace(job, task=TaskSource(key=job.task.key, module_json=""))
        self._known.add(job.task.key)
        self.job, self.deadline = index, time.monotonic() + limit_s
        self.builds += 1
        # A child that died idle shows as an end of file at the next look at its pipe.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.child.pipe.send(job)

    def receive(self) -> Built | Failure:
        """The answer that is ready, or why there will be none."""
        self.job = None
        try:
            answer: Built | Failure = self.child.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.broken = True
            message = f"the compiler {self.child.cause_of_death()}"
            self.child.kill()
            return Failure(kind=FailureKind.BUILD_ERROR, message=message)
        return answer

    def give_up(self, limit_s: float) -> Failure:
        """Kill a child whose time is up."""
        self.job, self.broken = None, True
        self.child.kill()
        message = f"the build took longer than {limit_s:g} s"
        return Failure(kind=FailureKind.BUILD_TIMEOUT, message=message, cost_s=limit_s)


def _build_worker() -> Callable[..., None]:
    from tuner.measure.build_worker import serve  # loads TVM: not where only the pool is tested

    return serve
