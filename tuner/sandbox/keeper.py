"""A keeper of a confined process, for servers: it waits for the process, and ends whatever that leaves behind.

Processes whose parent has died are handed to it, so that none can get away by being forked twice; a server itself is no
place for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from pathlib import Path
from typing import NoReturn

from tuner.sandbox.files import remove_tree

_SET_CHILD_SUBREAPER = 36
_SWEEP_S = 0.02


def adopt_orphans() -> None:
    """From now on descendants of this process whose parent dies are handed to it, not to the system."""
    ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def keep(*, remove: str | None = None) -> None:
    """Fork: return in the child; the parent waits for it, ends its family, removes a folder of theirs, and ends in the
    same way."""
    adopt_orphans()
    child = os.fork()
    if child == 0:
        return
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # who waits for the end of the output waits for the child's
        os.dup2(null, descriptor)
    _, status = os.waitpid(child, 0)
    end_descendants(os.getpid())
    if remove is not None:
        remove_tree(Path(remove))
    end_like(os.waitstatus_to_exitcode(status))


def end_like(exit_code: int) -> NoReturn:
    """End this process as another one ended: by the same signal, or with the same status."""
    if exit_code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-exit_code, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.kill(os.getpid(), -exit_code)
        time.sleep(1)  # a signal that does not end a process
    os._exit(exit_code if exit_code >= 0 else 128 - exit_code)


def end_descendants(root: int, *, within_s: float = 10.0) -> bool:
    """Kill everything below a process that adopts orphans, and reap what is ours; True when nothing of it is left."""
    deadline = time.monotonic() + within_s
    while True:
        living = [pid for pid, state in descendants(root).items() if state != "Z"]
        for pid in living:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        reap(set())
        if not living:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_SWEEP_S)


def reap(others: set[int]) -> None:
    """Collect children of this process that have ended, but those that somebody else waits for."""
    for pid, (parent, state) in _processes().items():
        if parent == os.getpid() and state == "Z" and pid not in others:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def descendants(root: int) -> dict[int, str]:
    """The processes below one, by pid, with their states (``Z``: ended, but not collected)."""
    processes = _processes()
    below: dict[int, str] = {}
    found = {root}
    while found:
        found = {pid for pid, (parent, _) in processes.items() if parent in found and pid not in below and pid != root}
        below |= {pid: processes[pid][1] for pid in found}
    return below


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and state of every process, by pid."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal():
            continue
        try:
            # The name is in parentheses, and may hold any character.
            state, parent = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
        except (OSError, ValueError):
            continue
        found[int(name)] = (int(parent), state)
    return found
