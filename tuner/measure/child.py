"""Starting measuring children: forked from one warm parent, dead as soon as their job is dead.

A fork server imports TVM once per job; builders and the runner are forked from it in milliseconds, so that
killing and replacing one is cheap and no import is ever paid twice.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from tuner.measure.fork_server import Forked, ForkServer

_PR_SET_PDEATHSIG = 1
# The first fork waits for the imports of the fork server: seconds on a busy machine.
_FORKS_WITHIN_S = _STARTS_WITHIN_S = 60.0
# How long a dead child's exit code is waited for: the fork server tells it.
_SAYS_WITHIN_S = 5.0
_GROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")

fork_server = ForkServer(preload=["tuner.measure.build_worker", "tuner.measure.run_worker"])
atexit.register(fork_server.stop)


class Child:
    """One living child and the pipe to it. ``serve(pipe, *arguments)`` runs in the child until the pipe closes.

    More than ``memory_bytes`` of its own are refused to the child, and to each process that it starts.
    """

    def __init__(self, serve: Callable[..., None], *arguments: Any, memory_bytes: int | None = None) -> None:
        self.pipe, far_end = multiprocessing.Pipe()
        with far_end:
            self.process = _start(far_end, serve, arguments, memory_bytes)

    def kill(self) -> None:
        """End the child at once, whatever it is doing, and release its pipe."""
        self.process.kill()
        self.process.exit_code(within_s=_SAYS_WITHIN_S)
        self.process.close()
        self.pipe.close()

    def cause_of_death(self) -> str:
        """Why a child whose pipe closed is gone, in words."""
        code = self.process.exit_code(within_s=_SAYS_WITHIN_S)
        if code is None:
            return "stopped answering"
        if code < 0:
            return f"died by {signal.Signals(-code).name}"
        return f"exited with status {code}"


def _start(pipe: Connection, *what: Any) -> Forked:
    """Fork the process from the fork server. One that does not answer, because it was stopped, say, is killed and made
    anew."""
    try:
        return fork_server.fork(_main, *what, pipe=pipe, within_s=_FORKS_WITHIN_S)
    except OSError:
        fork_server.stop()
        return fork_server.fork(_main, *what, pipe=pipe, within_s=_STARTS_WITHIN_S)


def usable_memory_bytes() -> int:
    """What this machine has, or less where the container that we run in may use less."""
    total = int(psutil.virtual_memory().total)
    with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
        total = min(total, int(_GROUP_LIMIT.read_text()))
    return total


def _main(pipe: Connection, serve: Callable[..., None], arguments: tuple[Any, ...], memory_bytes: int | None) -> None:
    if memory_bytes is not None:
        _limit_memory(memory_bytes)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        serve(pipe, *arguments)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        os._exit(0)


def _limit_memory(size_bytes: int) -> None:
    """Of data, not of addresses: libraries and what a fork shares with its parent cost addresses and no memory."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    if hard == resource.RLIM_INFINITY or size_bytes < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (size_bytes, hard))
