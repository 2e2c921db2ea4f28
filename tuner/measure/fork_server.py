"""A warm parent of measuring children: it imports TVM once and forks from there, in milliseconds.

Like the standard library's ``multiprocessing.forkserver``, over one pair of connected sockets instead of one with a
name, which no confined process may make (`tuner.sandbox.seccomp`). A request is one message: what to run, pickled, with
two descriptors: the child's end of its pipe, and where its pid is written and later how it ended.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, NoReturn

_MAX_REQUEST_BYTES = 128 * 1024
_NUMBER = struct.Struct("q")
_DIED = 255


class Forked:
    """A child of a fork server. The server tells how it ended, so that it is known as soon as that is."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self._status = status
        self._exit_code: int | None = None

    def exit_code(self, *, within_s: float = 0.0) -> int | None:
        """As `subprocess` gives it; None while it runs."""
        if self._exit_code is None and select.select([self._status], [], [], within_s)[0]:
            found = _read_number(self._status)
            self._exit_code = _DIED if found is None else found
        return self._exit_code

    def kill(self) -> None:
        if self.exit_code() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """It is not asked any more."""
        if self._status >= 0:
            self._exit_code = _DIED if self._exit_code is None else self._exit_code
            os.close(self._status)
            self._status = -1


class ForkServer:
    """The parent's side. The server ends with this process, and is started anew when it is gone."""

    def __init__(self, preload: Sequence[str]) -> None:
        self._preload = list(preload)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def fork(self, run: Callable[..., None], *arguments: Any, pipe: Connection, within_s: float) -> Forked:
        """Run ``run(pipe, *arguments)`` in a child. Raises OSError where the server does not answer in time."""
        request = pickle.dumps((sys.path, run, arguments))
        told, tells = os.pipe()
        try:
            with self._lock:
                control = self._running()
            socket.send_fds(control, [request], [pipe.fileno(), tells])
        except BaseException:
            os.close(told)
            raise
        finally:
            os.close(tells)
        pid = _read_number(told) if select.select([told], [], [], within_s)[0] else None
        if pid is None:
            os.close(told)
            raise OSError("the fork server does not answer")
        return Forked(pid, told)

    def stop(self) -> None:
        """Kill the server, and with it its children. The next fork starts another."""
        with self._lock:
            self._stop()

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None

    def _running(self) -> socket.socket:
        if self._process is None or self._process.poll() is not None or self._control is None:
            self._stop()
            self._control, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MAX_REQUEST_BYTES)
            program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main({far_end.fileno()}"
            with far_end:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", f"{program}, {self._preload!r})"],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[far_end.fileno()],
                )
        return self._control


def main(control_descriptor: int, preload: Sequence[str]) -> None:
    """Fork children as they are asked for, until nobody is there to ask."""
    for name in preload:
        with contextlib.suppress(ImportError):
            import_module(name)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    children: dict[int, int] = {}
    os.set_inheritable(control_descriptor, False)
    with socket.socket(fileno=control_descriptor) as control:
        while True:
            ready = select.select([control.fileno(), woken], [], [])[0]
            if woken in ready:
                os.read(woken, 4096)
                _tell_of_the_ended(children)
            if control.fileno() in ready:
                request, descriptors, *_ = socket.recv_fds(control, _MAX_REQUEST_BYTES, 2)
                if not request:
                    return
                pipe, tells = descriptors
                pid = os.fork()
                if pid == 0:
                    for descriptor in (control.fileno(), woken, wakes, tells, *children.values()):
                        os.close(descriptor)
                    _become(request, pipe)
                os.close(pipe)
                children[pid] = tells
                _write_number(tells, pid)


def _become(request: bytes, pipe: int) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.path[:], run, arguments = pickle.loads(request)
        run(Connection(pipe), *arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _tell_of_the_ended(children: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if (tells := children.pop(pid, None)) is not None:
                _write_number(tells, os.waitstatus_to_exitcode(status))
                os.close(tells)


def _write_number(descriptor: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know any more
        os.write(descriptor, _NUMBER.pack(number))


def _read_number(descriptor: int) -> int | None:
    data = os.read(descriptor, _NUMBER.size)
    return _NUMBER.unpack(data)[0] if len(data) == _NUMBER.size else None
