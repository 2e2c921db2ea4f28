"""What confined processes tried and were refused: the kernel asks a listener about each call that the filter refuses.

The listener says no to all of them, and counts. It decides nothing, as what a call points to may change while it looks;
when it is gone the kernel says no by itself. (seccomp_unotify(2), ``linux/seccomp.h``)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType

from tuner.sandbox import seccomp

# ``struct seccomp_notif``: id, pid, flags, then the call with its number, architecture, address and six arguments;
# ``struct seccomp_notif_resp``: id, value, error, flags. What is asked is zeros at first.
_ASKED = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_LOOKS_EVERY_MS = 200
_ENDS_WITHIN_S = 5.0
# So many calls are refused at once; whoever tries more often waits so long for each.
_PROMPT, _LATER_S = 1_000, 0.01


class Refusals:
    """A listener's thread for the confined processes of one policy, as a context. ``counts`` are refused calls by their
    names, such as ``socket``; ``first`` is called with a name when it is refused for the first time, in that thread."""

    def __init__(self, first: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self._first = first
        self._stopped = threading.Event()
        self._ours, self.theirs = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)

    def __enter__(self) -> Refusals:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self.theirs.close()
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        self._thread.join(_ENDS_WITHIN_S)
        self._ours.close()

    def __str__(self) -> str:
        """``socket 3 times, ptrace``, the most frequent first; empty where nothing was refused."""
        return ", ".join(name if count == 1 else f"{name} {count} times" for name, count in self.counts.most_common())

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            _, descriptors, _, _ = socket.recv_fds(self._ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
            for listener in descriptors:
                try:
                    self._listen(listener)
                finally:
                    os.close(listener)

    def _listen(self, listener: int) -> None:
        """Until nobody is left who could ask."""
        waiting = select.poll()
        waiting.register(listener, select.POLLIN)
        while not self._stopped.is_set():
            for _, events in waiting.poll(_LOOKS_EVERY_MS):
                if not events & select.POLLIN:
                    return
                # Who asked may have died meanwhile.
                with contextlib.suppress(FileNotFoundError, InterruptedError):
                    self._refuse(listener)

    def _refuse(self, listener: int) -> None:
        asked = bytearray(_ASKED.size)
        fcntl.ioctl(listener, _RECEIVE, asked)
        question, _, _, number, *_ = _ASKED.unpack(asked)
        name, error = seccomp.refusal(number)
        if self.counts.total() >= _PROMPT:
            self._stopped.wait(_LATER_S)
        self.counts[name] += 1
        if self.counts[name] == 1:
            self._first(name)
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(question, 0, -error, 0))
