"""A tracker and boards on this machine: TVM's own servers, on loopback."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.tuner.measure.emulated import inside
from tuner.measure.tracker import Fleet, Tracker, TrackerError

KEY = "board"
_STARTED_WITHIN_S = 90.0
_SETTINGS = ("TVM_USE_RUNTIME_LIB=1", "TVM_NUM_THREADS=1", "TVM_BIND_THREADS=0")


@dataclass
class Boards:
    """A tracker with the boards that have joined it."""

    tracker: Tracker
    processes: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *, key: str = KEY, root: Path | None = None) -> int:
        """One more board, of this machine or emulated (its root file system); its port."""
        port = free_port()
        python = [sys.executable] if root is None else inside(root, *_SETTINGS, "/usr/bin/python3.11")
        self.processes[port] = _server(
            python, "rpc_server", port, "--tracker", str(self.tracker), "--key", key, "--custom-addr", "127.0.0.1"
        )
        self.wait(lambda fleet: any(board.port == port for board in fleet.of(key)))
        return port

    def kill(self, port: int) -> None:
        """As if its plug was pulled: with everything that it had started."""
        process = self.processes.pop(port)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def wait(self, until: object) -> Fleet:
        deadline = time.monotonic() + _STARTED_WITHIN_S
        while time.monotonic() < deadline:
            with contextlib.suppress(TrackerError):
                fleet = self.tracker.fleet()
                if until(fleet):  # type: ignore[operator]
                    return fleet
            time.sleep(0.1)
        raise AssertionError("the boards did not start")


@contextlib.contextmanager
def boards() -> Iterator[Boards]:
    port = free_port()
    process = _server([sys.executable], "rpc_tracker", port)
    made = Boards(tracker=Tracker(host="127.0.0.1", port=port))
    try:
        made.wait(lambda fleet: True)
        yield made
    finally:
        for each in (*made.processes.values(), process):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(each.pid, signal.SIGKILL)
            each.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _server(python: list[str], program: str, port: int, *arguments: str) -> subprocess.Popen[bytes]:
    where = ["--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1)]
    return subprocess.Popen(
        [*python, "-m", f"tvm.exec.{program}", *where, *arguments],
        env={**os.environ, "TVM_NUM_THREADS": "1", "TVM_BIND_THREADS": "0"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
