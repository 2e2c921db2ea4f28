"""The confined process of one attempt: started, listened to, watched, and ended with all that it started."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from service.engine.processes import JOB_VARIABLE
from service.job_host.errors import LimitExceeded, TunerDied
from service.job_host.host import JobHost
from service.job_host.messages import Succeed
from service.settings import Settings
from tuner import link, wire
from tuner.errors import SandboxUnavailable
from tuner.events import Log
from tuner.job import request_as_json
from tuner.measure.child import usable_memory_bytes
from tuner.measure.tracker import Tracker, TrackerError
from tuner.request import TuneRequest
from tuner.sandbox.files import copy_tree, fresh_folder, used_bytes
from tuner.sandbox.keeper import adopt_orphans, descendants, end_descendants, reap
from tuner.sandbox.limits import Limits, usual_processes
from tuner.sandbox.packages import compile_packages
from tuner.sandbox.refusals import Refusals
from tuner.sandbox.start import ENTER_FAILED, Policy, start
from tuner.sandbox.strength import strength

_GIB = 1024**3
_LOOKS_EVERY_S = 2.0
_ENDS_WITHIN_S = 30.0
_LOG_BYTES = 64 * 1024**2
# Addresses that libraries reserve and do not use: thread stacks, arenas of the allocator, LLVM's code memory.
_UNUSED_ADDRESSES_BYTES = 64 * _GIB
# Ports that TVM's RPC server takes by itself.
_RPC_PORTS = range(9090, 9200)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What is run confined, and what it may read beside the packages of this installation; tests have others."""

    command: tuple[str, ...] = (sys.executable, "-P", "-m", "tuner.job")
    read: tuple[Path, ...] = ()


def run_confined(
    settings: Settings, job_id: str, request: TuneRequest, host: JobHost, *, program: Program | None = None
) -> Succeed:
    """Run the tuner on a request in its work directory, which is emptied before; its processes are gone afterwards.

    Raises what it failed with, `ForgedResult`, `LimitExceeded`, `TunerDied`, and `SandboxUnavailable`.
    """
    adopt_orphans()
    print(f"sandbox: {strength().describe(settings.sandbox)}", flush=True)
    refusals = Refusals(lambda name: print(f"the sandbox refused: {name}", flush=True))
    try:
        with refusals:
            return _run(settings, job_id, request, host, program or Program(), refusals)
    finally:
        if refusals.counts:
            host.sink.emit(Log(message=f"Refused by the sandbox: {refusals}", level="warning"))


def _run(
    settings: Settings, job_id: str, request: TuneRequest, host: JobHost, program: Program, refusals: Refusals
) -> Succeed:
    with _running(settings, job_id, request, program, refusals) as (child, connection):
        watch = _Watch(settings, child, connection, request.work_dir)
        with watch:
            with contextlib.suppress(ConnectionError):  # it has died already
                wire.send(connection, request_as_json(_with_address(request)))
            result = host.serve(connection)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(_ENDS_WITHIN_S)
        if result is not None:
            return result
        if watch.exceeded:
            raise LimitExceeded(watch.exceeded)
    if child.returncode == ENTER_FAILED:
        raise SandboxUnavailable("The job's process could not be confined; its log says why.")
    raise TunerDied(child.returncode or 1)  # silent, and content with itself: not what the tuner does


@contextlib.contextmanager
def _running(
    settings: Settings, job_id: str, request: TuneRequest, program: Program, refusals: Refusals
) -> Iterator[tuple[subprocess.Popen[bytes], socket.socket]]:
    fresh_folder(request.work_dir)
    cache = _linker_cache(request)
    compile_packages()
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            child = start(
                [*program.command, str(theirs.fileno())],
                _policy(settings, request, program),
                mode=settings.sandbox,
                environment={JOB_VARIABLE: job_id, "ZIG_GLOBAL_CACHE_DIR": str(cache)},
                pass_fds=[theirs.fileno()],
                refusals=refusals,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        assert child.stdout is not None
        log = threading.Thread(target=_keep_log, args=(child.stdout,), name="log", daemon=True)
        log.start()
        try:
            yield child, ours
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            end_descendants(os.getpid())
            log.join(_ENDS_WITHIN_S)


def _policy(settings: Settings, request: TuneRequest, program: Program) -> Policy:
    memory_bytes = settings.job_memory_bytes or usable_memory_bytes()
    given = [request.model_path, *([request.samples] if request.samples else [])]
    return Policy(
        work_dir=request.work_dir,
        read=(*given, *program.read),
        secrets=(settings.data_dir,),
        connect=_ports(request),
        limits=Limits(
            data_bytes=memory_bytes,
            address_space_bytes=4 * memory_bytes + _UNUSED_ADDRESSES_BYTES,
            file_bytes=settings.job_disk_bytes,
            cpu_s=int(settings.job_timeout_s) * (os.cpu_count() or 1),
            processes=usual_processes(),
        ),
    )


def _ports(request: TuneRequest) -> tuple[int, ...]:
    """Of build hosts, of the tracker and of boards: those that are there, and where TVM's servers listen by default."""
    hosts = {host.port for host in request.build_hosts}
    if request.fleet is None:
        return tuple(sorted(hosts))
    known = {board.port for board in request.fleet.fleet().of(request.target.name)}
    return tuple(sorted({*hosts, request.fleet.port, *known, *_RPC_PORTS}))


def _with_address(request: TuneRequest) -> TuneRequest:
    """With the tracker's address instead of its name: a confined process cannot ask for it."""
    if request.fleet is None:
        return request
    try:
        found = socket.getaddrinfo(request.fleet.host, request.fleet.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise TrackerError(f"The tracker at {request.fleet} is not known by that name: {error}") from error
    return replace(request, fleet=Tracker(host=str(found[0][4][0]), port=request.fleet.port))


def _linker_cache(request: TuneRequest) -> Path:
    """A copy of what zig has compiled for the job's triples: written by the job, and seen by no other."""
    cache = request.work_dir / "zig"
    cache.mkdir()
    for triple in dict.fromkeys((link.host_triple(), request.target.triple)):
        filled = link.filled_cache(triple)
        if filled is not None:
            copy_tree(filled, cache)
    return cache


def _keep_log(output: BinaryIO) -> None:
    """What the process prints goes into the job's log, up to a size."""
    kept = 0
    with output:
        while chunk := os.read(output.fileno(), 65536):
            if kept < _LOG_BYTES:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
            elif kept - len(chunk) < _LOG_BYTES:
                print("The log ends here: the process has printed too much.", flush=True)
            kept += len(chunk)


class _Watch:
    """Looks at the process from time to time, ends it when it takes too much (``exceeded`` says of what), and stops
    listening when it is gone, whoever else holds its end of the connection."""

    def __init__(
        self, settings: Settings, child: subprocess.Popen[bytes], connection: socket.socket, work_dir: Path
    ) -> None:
        self.exceeded = ""
        self._settings = settings
        self._child = child
        self._connection = connection
        self._work_dir = work_dir
        self._ends_at = time.monotonic() + settings.job_timeout_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(_ENDS_WITHIN_S)

    def _look(self) -> None:
        next_look = time.monotonic() + _LOOKS_EVERY_S
        while not self._stopped.wait(0.1):
            if self._has_ended():
                with contextlib.suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RD)  # what it has sent before is still read
                return
            if time.monotonic() < next_look:
                continue
            next_look = time.monotonic() + _LOOKS_EVERY_S
            reap({self._child.pid})
            self.exceeded = self._excess()
            if self.exceeded:
                self._child.kill()

    def _has_ended(self) -> bool:
        """Without collecting it, which is for the other thread."""
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        try:
            return os.waitid(os.P_PID, self._child.pid, flags) is not None
        except ChildProcessError:
            return True

    def _excess(self) -> str:
        if time.monotonic() > self._ends_at:
            return f"The job took longer than {self._settings.job_timeout_s:.0f} s."
        files = used_bytes(self._work_dir)
        if files is None:
            return "The job made more files than any needs."
        if files + _unnamed_bytes(descendants(os.getpid())) > self._settings.job_disk_bytes:
            return f"The job's files took more than {self._settings.job_disk_bytes} bytes."
        return ""


def _unnamed_bytes(pids: Iterable[int]) -> int:
    """What files take that are open and have no name any more: a folder does not show them."""
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    found = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    if found.st_nlink == 0:
                        sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())
