"""A Ray cluster on this machine, its nodes started and killed as on several."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests.tuner.measure.boards import free_port

MARK = "TESSERA_TEST_RAY"
_STARTS_WITHIN_S = 60.0
# How long a node looks for a head that is gone, instead of a minute.
_RECONNECTS_WITHIN_S = 5
TOKEN = "0123456789abcdef0123456789abcdef"


def ray_environment() -> dict[str, str]:
    """What the nodes and whoever talks to them have in common."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_gcs_rpc_server_reconnect_timeout_s": str(_RECONNECTS_WITHIN_S),
    }


def on_ray() -> bool:
    """Whether the running test talks to a cluster: it has `ray_environment` in its own."""
    return os.environ.get("RAY_AUTH_TOKEN") == TOKEN


class RayNode:
    """One node: everything that ``ray start`` left running."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._raylet: psutil.Process | None = None

    def processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if process.environ().get(MARK) == self._mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def lives(self) -> bool:
        """Whether it takes part in the cluster; others of its processes may be left when it does not."""
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._raylet is None:
                raylets = [each for each in self.processes() if "raylet/raylet" in " ".join(each.cmdline())]
                self._raylet = raylets[0] if raylets else None
            raylet = self._raylet
            return raylet is not None and raylet.is_running() and raylet.status() != psutil.STATUS_ZOMBIE
        return False

    def owns(self, process: psutil.Process) -> bool:
        return process.environ().get(MARK) == self._mark

    def kill(self, *, only: str = "") -> None:
        """kill -9 of its processes and their jobs'; only of those whose command has ``only`` in it, if given."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if only in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Everything of it stands still meanwhile."""
        for process in (processes := self.processes()):
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.resume()


class RayCluster:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._client_port = free_port(), free_port()
        self._numbers = iter(range(1000))
        self.nodes: list[RayNode] = []

    @property
    def address(self) -> str:
        return f"ray://127.0.0.1:{self._client_port}"

    def start_head(self, *, cores: int = 2, resources: Mapping[str, float] | None = None) -> RayNode:
        return self._start(
            "--head",
            f"--port={self._port}",
            f"--ray-client-server-port={self._client_port}",
            "--include-dashboard=false",
            f"--temp-dir={self._folder}",
            cores=cores,
            resources=resources,
        )

    def start_node(self, *, cores: int = 1, resources: Mapping[str, float] | None = None) -> RayNode:
        return self._start(f"--address=127.0.0.1:{self._port}", cores=cores, resources=resources)

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    def _start(self, *options: str, cores: int, resources: Mapping[str, float] | None) -> RayNode:
        mark = f"{os.getpid()}-{self._port}-{next(self._numbers)}"
        command = [
            str(Path(sys.executable).with_name("ray")),
            "start",
            *options,
            f"--num-cpus={cores}",
            f"--resources={json.dumps(resources or {})}",
            "--object-store-memory=80000000",
            "--disable-usage-stats",
        ]
        environment = {
            **os.environ,
            **ray_environment(),
            MARK: mark,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=_STARTS_WITHIN_S, check=False
        )
        node = RayNode(mark)
        self.nodes.append(node)
        assert done.returncode == 0, done.stdout + done.stderr
        return node


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """A cluster without nodes yet; all are killed in the end.

    One at a time on a machine: every cluster's servers for its clients listen on the same ports, from 23000 on, and
    share them without an error. (ray/util/client/server/proxier.py)
    """
    folder = Path(tempfile.mkdtemp(prefix="tray"))  # short: it holds sockets
    cluster = RayCluster(folder)
    try:
        yield cluster
    finally:
        cluster.stop()
        time.sleep(0.2)
        shutil.rmtree(folder, ignore_errors=True)
