"""The parent's side of building: a pool of workers that live as long as the job, each under a watchdog."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from types import TracebackType
from typing import Self

from tuner.disk_space import is_full
from tuner.measure.build_workers import BuildHost, BuildWorker, HostLost, LocalWorker, RemoteWorker
from tuner.measure.child import Child, usable_memory_bytes
from tuner.measure.jobs import BuildJob, Built, Failure
from tuner.targets import TargetSpec

# Quick builds of one task that are sent together: what they share is spread thin enough at four.
_GROUP = 4
_TIMEOUT_S = 20.0
# All workers together may take half of the machine's memory; LLVM needs some hundred megabytes for a candidate.
_LEAST_MEMORY_BYTES = 2 * 1024**3


class BuildPool:
    """A `Builder` with one worker per core of this machine, and one behind each of ``hosts`` that answers.

    A build that hangs is killed after ``timeout_s`` (`FailureKind.BUILD_TIMEOUT`), one that crashes its worker
    is a `FailureKind.BUILD_ERROR`; either way a fresh worker is forked and the others never notice. One that wants more
    than ``worker_memory_bytes`` fails or crashes: by default the workers share half of the machine's memory, with 2 GiB
    at least for each. A build that fails while the disk of its library is full says nothing of the candidate: `build`
    raises OSError (ENOSPC) then. A host that disappears is done without; the others build what it had.
    """

    def __init__(
        self,
        target: TargetSpec,
        *,
        workers: int,
        hosts: Sequence[BuildHost] = (),
        timeout_s: float = _TIMEOUT_S,
        serve: Callable[..., None] | None = None,
        worker_memory_bytes: int | None = None,
    ) -> None:
        self._target = target
        self._timeout_s = timeout_s
        self._serve = serve
        self._memory_bytes = worker_memory_bytes or max(_LEAST_MEMORY_BYTES, usable_memory_bytes() // 2 // workers)
        self._workers: list[BuildWorker] = [LocalWorker(self._start) for _ in range(workers)]
        for host in hosts:
            with contextlib.suppress(HostLost):
                self._workers.append(RemoteWorker(host, target))

    @property
    def size(self) -> int:
        """How many builds go on at a time."""
        return len(self._workers)

    def _start(self) -> Child:
        serve = self._serve or _build_worker()
        return Child(serve, self._target.tvm, self._target.triple, memory_bytes=self._memory_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers = []

    def build(self, jobs: list[BuildJob], *, timeout_s: float | None = None) -> list[Built | Failure]:
        """Build every job; the answers are in the order of the jobs.

        Quick builds share workers' calls in small groups. A group that hangs or crashes is built again one by one.
        """
        limit_s = timeout_s or self._timeout_s
        answers: dict[int, Built | Failure] = {}
        waiting = deque(self._groups(jobs))
        while len(answers) < len(jobs):
            for worker in self._workers:
                if not worker.group and waiting:
                    group = waiting.popleft()
                    worker.send(group, [jobs[index] for index in group], limit_s)
            busy = [worker for worker in self._workers if worker.group]
            nearest = min(worker.deadline for worker in busy)
            ready = wait([worker.pipe for worker in busy], timeout=max(0.0, nearest - time.monotonic()))
            for worker in busy:
                group = worker.group
                try:
                    if worker.pipe in ready:
                        given = worker.receive()
                    elif time.monotonic() >= worker.deadline:
                        given = worker.give_up(limit_s)
                    else:
                        continue
                except HostLost:
                    worker.close()
                    self._workers.remove(worker)
                    waiting.appendleft(group)
                    continue
                _require_space(jobs[group[0]], given)
                if isinstance(given, Failure):
                    if len(group) > 1:
                        waiting.extendleft([index] for index in reversed(group))
                        continue
                    given = [given]
                answers.update(zip(group, given, strict=True))
        return [answers[index] for index in range(len(jobs))]

    def _groups(self, jobs: list[BuildJob]) -> list[list[int]]:
        """The jobs' indices, quick neighbours of one task together; groups shrink towards the end, so that no worker
        waits long for the last one (guided self-scheduling, Polychronopoulos and Kuck, 1987). One alone never waits."""
        groups: list[list[int]] = []
        start = 0
        while start < len(jobs):
            left = len(jobs) - start
            size = min(_GROUP, -(-left // (2 * self.size)) if self.size > 1 else left)
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


def _build_worker() -> Callable[..., None]:
    from tuner.measure.build_worker import serve  # loads TVM: not where only the pool is tested

    return serve
