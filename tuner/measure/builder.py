"""The parent's side of building: a pool of workers that live as long as the job, each under a watchdog."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from tuner.disk_space import is_full
from tuner.measure.child import Child, usable_memory_bytes
from tuner.measure.jobs import BuildJob, Built, Failure
from tuner.records import FailureKind
from tuner.targets import TargetSpec

# LLVM and TVM keep a little memory of every build: a worker is replaced (a fork, milliseconds) after this many.
_BUILDS_PER_WORKER = 100
# Quick builds of one task that are sent together: what they share is spread thin enough at four.
_GROUP = 4
_TIMEOUT_S = 20.0
# All workers together may take half of the machine's memory; LLVM needs some hundred megabytes for a candidate.
_LEAST_MEMORY_BYTES = 2 * 1024**3


class BuildPool:
    """A `Builder` with one worker per core.

    A build that hangs is killed after ``timeout_s`` (`FailureKind.BUILD_TIMEOUT`), one that crashes its worker
    is a `FailureKind.BUILD_ERROR`; either way a fresh worker is forked and the others never notice. One that wants more
    than ``worker_memory_bytes`` fails or crashes: by default the workers share half of the machine's memory, with 2 GiB
    at least for each. A build that fails while the disk of its library is full says nothing of the candidate: `build`
    raises OSError (ENOSPC) then.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        workers: int,
        timeout_s: float = _TIMEOUT_S,
        serve: Callable[..., None] | None = None,
        worker_memory_bytes: int | None = None,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._serve = serve
        self._memory_bytes = worker_memory_bytes or max(_LEAST_MEMORY_BYTES, usable_memory_bytes() // 2 // workers)
        self._workers = [self._start() for _ in range(workers)]

    def _start(self) -> _Worker:
        serve = self._serve or _build_worker()
        return _Worker(Child(serve, self._target.tvm, self._target.triple, memory_bytes=self._memory_bytes))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.child.kill()
        self._workers = []

    def build(self, jobs: list[BuildJob], *, timeout_s: float | None = None) -> list[Built | Failure]:
        """Build every job; the answers are in the order of the jobs.

        Quick builds share workers' calls in small groups. A group that hangs or crashes is built again one by one.
        """
        limit_s = timeout_s or self._timeout_s
        answers: dict[int, Built | Failure] = {}
        waiting = deque(self._groups(jobs))
        while len(answers) < len(jobs):
            for slot, worker in enumerate(self._workers):
                if not worker.group and waiting:
                    if worker.builds >= _BUILDS_PER_WORKER:
                        worker.child.kill()
                        worker = self._workers[slot] = self._start()
                    group = waiting.popleft()
                    worker.send(group, [jobs[index] for index in group], limit_s)
            busy = [worker for worker in self._workers if worker.group]
            nearest = min(worker.deadline for worker in busy)
            ready = wait([worker.child.pipe for worker in busy], timeout=max(0.0, nearest - time.monotonic()))
            for slot, worker in enumerate(self._workers):
                group = worker.group
                if worker.child.pipe in ready:
                    given = worker.receive()
                elif group and time.monotonic() >= worker.deadline:
                    given = worker.give_up(limit_s)
                else:
                    continue
                _require_space(jobs[group[0]], given)
                if isinstance(given, Failure):
                    self._workers[slot] = self._start()
                    if len(group) > 1:
                        waiting.extendleft([index] for index in reversed(group))
                        continue
                    given = [given]
                answers.update(zip(group, given, strict=True))
        return [answers[index] for index in range(len(jobs))]

    def _groups(self, jobs: list[BuildJob]) -> list[list[int]]:
        """The jobs' indices, quick neighbours of one task together; groups shrink towards the end, so that no worker
        waits long for the last one (guided self-scheduling, Polychronopoulos and Kuck, 1987)."""
        groups: list[list[int]] = []
        start = 0
        while start < len(jobs):
            size = min(_GROUP, -(-(len(jobs) - start) // (2 * len(self._workers))))
            end = start + 1
            while end < start + size and _together(jobs[start], jobs[end]):
                end += 1
            groups.append(list(range(start, end)))
            start = end
        return groups


def _together(first: BuildJob, other: BuildJob) -> bool:
    return first.quick and other.quick and first.task.key == other.task.key


def _require_space(job: BuildJob, given: list[Built | Failure] | Failure) -> None:
    failed = isinstance(given, Failure) or any(isinstance(answer, Failure) for answer in given)
    if failed and is_full(folder := job.output.parent):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


class _Worker:
    """One child, the tasks that it already has, and the group of jobs that it is on (empty when idle)."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.builds = 0
        self.group: list[int] = []
        self.deadline = 0.0
        self._known: set[str] = set()

    def send(self, group: list[int], jobs: list[BuildJob], limit_s: float) -> None:
        self.group, self.deadline = group, time.monotonic() + limit_s
        self.builds += len(group)
        # A child that died idle shows as an end of file at the next look at its pipe.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.child.pipe.send([self._without_known_module(job) for job in jobs])

    def receive(self) -> list[Built | Failure] | Failure:
        """The answers that are ready, or why there will be none: the child is dead then."""
        self.group = []
        try:
            answers: list[Built | Failure] = self.child.pipe.recv()
        except (EOFError, ConnectionResetError):
            message = f"the compiler {self.child.cause_of_death()}"
            self.child.kill()
            return Failure(kind=FailureKind.BUILD_ERROR, message=message)
        return answers

    def give_up(self, limit_s: float) -> Failure:
        """Kill a child whose time is up."""
        self.group = []
        self.child.kill()
        message = f"the build took longer than {limit_s:g} s"
        return Failure(kind=FailureKind.BUILD_TIMEOUT, message=message, cost_s=limit_s)

    def _without_known_module(self, job: BuildJob) -> BuildJob:
        if job.task.key in self._known:
            return replace(job, task=replace(job.task, module_json=""))
        self._known.add(job.task.key)
        return job


def _build_worker() -> Callable[..., None]:
    from tuner.measure.build_worker import serve  # loads TVM: not where only the pool is tested

    return serve
