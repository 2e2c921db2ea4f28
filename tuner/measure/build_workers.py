"""The workers of a build pool: a child of this machine, or one behind a build host on another."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection
from typing import Protocol

from tuner.measure.child import Child
from tuner.measure.jobs import BuildJob, Built, Failure, TaskSource
from tuner.records import FailureKind
from tuner.targets import TargetSpec

# Where a build host is told its key.
KEY_VARIABLE = "TESSERA_BUILD_KEY"
# LLVM and TVM keep a little memory of every build: a worker is replaced (a fork, milliseconds) after this many.
_BUILDS_PER_WORKER = 100
# The host has the same watchdog, for the group and then for each of it; who is silent for longer than that is gone.
_SILENT_S = 10.0


@dataclass(frozen=True, kw_only=True)
class BuildHost:
    """A machine that builds for a job (`tuner.measure.build_host`): one build at a time for each connection."""

    host: str
    port: int
    key: str = field(repr=False)


class HostLost(Exception):
    """The machine that built is gone; what it had is to be built by others."""


class BuildWorker(Protocol):
    """Builds one group of jobs at a time; ``group`` are its indices, empty when idle."""

    group: list[int]
    deadline: float

    @property
    def pipe(self) -> Connection: ...

    def send(self, group: list[int], jobs: list[BuildJob], limit_s: float) -> None: ...

    def receive(self) -> list[Built | Failure] | Failure:
        """The answers that are ready, or why there will be none. Raises `HostLost`."""

    def give_up(self, limit_s: float) -> Failure:
        """End a build whose time is up. Raises `HostLost`."""

    def close(self) -> None: ...


class _KnownTasks:
    """The tasks that a worker already has: it is sent each module once."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def spared(self, jobs: list[BuildJob]) -> list[BuildJob]:
        return [replace(job, task=self._spared(job.task)) for job in jobs]

    def _spared(self, task: TaskSource) -> TaskSource:
        if task.key in self._keys:
            return replace(task, module_json="")
        self._keys.add(task.key)
        return task


class LocalWorker:
    """A child of this machine, forked anew when it crashed, hung, or has built a hundred candidates."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self.group: list[int] = []
        self.deadline = 0.0
        self._renew()

    def _renew(self) -> None:
        self.child, self._builds, self._known = self._start(), 0, _KnownTasks()

    @property
    def pipe(self) -> Connection:
        return self.child.pipe

    def send(self, group: list[int], jobs: list[BuildJob], limit_s: float) -> None:
        if self._builds >= _BUILDS_PER_WORKER:
            self.child.kill()
            self._renew()
        self.group, self.deadline = group, time.monotonic() + limit_s
        self._builds += len(group)
        # A child that died idle shows as an end of file at the next look at its pipe.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(self._known.spared(jobs))

    def receive(self) -> list[Built | Failure] | Failure:
        self.group = []
        try:
            answers: list[Built | Failure] = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            message = f"the compiler {self.child.cause_of_death()}"
            self.child.kill()
            self._renew()
            return Failure(kind=FailureKind.BUILD_ERROR, message=message)
        return answers

    def give_up(self, limit_s: float) -> Failure:
        self.group = []
        self.child.kill()
        self._renew()
        message = f"the build took longer than {limit_s:g} s"
        return Failure(kind=FailureKind.BUILD_TIMEOUT, message=message, cost_s=limit_s)

    def close(self) -> None:
        self.child.kill()


class RemoteWorker:
    """A worker behind a build host, which watches over it. Raises `HostLost` where there is none at that address."""

    def __init__(self, host: BuildHost, target: TargetSpec) -> None:
        self.group: list[int] = []
        self.deadline = 0.0
        self._jobs: list[BuildJob] = []
        try:
            self.pipe: Connection = Client((host.host, host.port), authkey=bytes.fromhex(host.key))
            self.pipe.send(target)
        except (AuthenticationError, EOFError, OSError) as error:
            raise HostLost(f"{host.host}:{host.port} does not answer: {error}") from error

    def send(self, group: list[int], jobs: list[BuildJob], limit_s: float) -> None:
        self.group, self.deadline = group, time.monotonic() + (1 + len(group)) * limit_s + _SILENT_S
        self._jobs = jobs
        with contextlib.suppress(OSError):  # shows at the next look at the connection
            self.pipe.send((jobs, limit_s))

    def receive(self) -> list[Built | Failure] | Failure:
        self.group = []
        try:
            answers, libraries = self.pipe.recv()
        except (EOFError, OSError) as error:
            raise HostLost("the connection broke") from error
        places = {job.output.name: job.output for job in self._jobs}
        for name, content in libraries.items():
            places[name].write_bytes(content)
        return [
            replace(answer, library=places[answer.library.name]) if isinstance(answer, Built) else answer
            for answer in answers
        ]

    def give_up(self, limit_s: float) -> Failure:
        self.group = []
        raise HostLost("it has not answered")

    def close(self) -> None:
        self.pipe.close()
