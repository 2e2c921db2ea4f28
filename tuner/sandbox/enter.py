"""``python -m tuner.sandbox.enter POLICY COMMAND…``: confine this process, then become the command.

A program of its own, because a server with threads must not run Python between fork and exec. Standard library only:
it starts in some 40 ms. The policy is JSON (`tuner.sandbox.start.Policy`). What the kernel refuses ends it with status
126: a command never runs with less than was asked for.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from tuner.sandbox import landlock, seccomp, user
from tuner.sandbox.keeper import keep
from tuner.sandbox.limits import Limits

FAILED = 126
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38
# The kernel, short of memory, is to end what is confined before anything else.
_OUT_OF_MEMORY_SCORE = "500"


def main(arguments: list[str]) -> NoReturn:
    policy, command = json.loads(arguments[0]), arguments[1:]
    if policy["keeper"]:
        keep(remove=policy["remove"])  # goes on in the child
    try:
        _confine(policy)
        os.execve(command[0], command, os.environ)
    except OSError as error:
        print(f"the sandbox could not be entered: {error}", file=sys.stderr, flush=True)
        os._exit(FAILED)


def _confine(policy: dict[str, Any]) -> None:
    """The order matters: each step takes away what the ones before needed."""
    parent = os.getppid() if policy["keeper"] else policy["parent"]
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_SCORE)
    if policy["uid"] is not None:
        user.change(policy["uid"])
    else:
        user.give_up_capabilities()
    Limits(**policy["limits"]).apply()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(FAILED)  # it died before it could be told
    if libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError("no_new_privs was refused")
    if policy["landlock"]:
        landlock.restrict(landlock.Rules(**{name: tuple(given) for name, given in policy["rules"].items()}))
    refusals, listener = policy["refusals"], None
    if policy["seccomp"]:
        listener = seccomp.restrict(tcp=bool(policy["rules"]["connect"]), listen=refusals is not None)
    if refusals is not None:
        _hand_over(refusals, listener)


def _hand_over(descriptor: int, listener: int | None) -> None:
    """Give the filter's listener to whoever has the other end (`tuner.sandbox.refusals`), and keep neither."""
    with socket.socket(fileno=descriptor) as theirs:
        if listener is not None:
            socket.send_fds(theirs, [b"."], [listener])
            os.close(listener)


if __name__ == "__main__":
    main(sys.argv[1:])
