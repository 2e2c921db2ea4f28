"""Jobs as detached actors of a Ray cluster, one each, found again by their names.

A node that is to measure carries a resource ``target:NAME``, one for each job that may be measured on it at a time:
``ray start --resources='{"target:host": 1}'``. Jobs for boards of the tracker, and those that only build, run anywhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import make_url

from service.engine.placement import CannotStart
from service.engine.processes import JOB_COMMAND, python_module
from service.engine.ray_protocol import RESOURCE_PREFIX
from service.errors import ServiceError
from service.fleet import FleetView
from service.jobs.deaths import Death
from service.jobs.queue import ActiveJob, Claim
from service.settings import Settings
from service.signing import private_key_pem
from tuner.sandbox.files import remove_tree
from tuner.targets import TargetSpec

_CONNECTS_WITHIN_S = 60.0
# Nothing that is asked for takes more than seconds, unless the cluster has gone.
_ANSWERS_WITHIN_S = 30.0
_TRY_AGAIN_S = 3.0
_CLIENT_PORT = 10001
_FRESH_S = 1.0
_LEAVES_WITHIN_S = 3.0
# Another bridge does not take up the connection of one that died: while a head waited for that, 30 seconds, it answered
# nobody else for some of them.
_OF_THE_BRIDGE = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_CLIENT_RECONNECT_GRACE_PERIOD": "0"}
_OF_THE_BUCKET = "AWS_"


class Unreachable(Exception):
    """The cluster does not answer; the message says why."""


@dataclass(frozen=True, kw_only=True)
class ClusterState:
    """What a cluster has (``total``) and what of it is free, by resource; on which machines."""

    nodes: int = 0
    machines: tuple[str, ...] = ()
    total: Mapping[str, float]
    free: Mapping[str, float]

    def __str__(self) -> str:
        places = [f"{name} × {amount:.0f}" for name, amount in self.total.items() if name.startswith(RESOURCE_PREFIX)]
        nodes = f"{self.nodes} node{'s' if self.nodes != 1 else ''}"
        return ", ".join([nodes, f"{self.total.get('CPU', 0):.0f} cores", *sorted(places)])


def require_ray(settings: Settings) -> str:
    """The cluster's address; raises `ServiceError` where none is set, or Ray is not installed."""
    if settings.ray_address is None:
        raise ServiceError(
            "The engine ray needs the address of a Ray cluster.",
            code="ray_address_missing",
            hint="tessera serve --engine ray --ray-address ray://HEAD:10001, or TESSERA_RAY_ADDRESS.",
        )
    if find_spec("ray") is None:
        raise ServiceError(
            "The engine ray needs Ray, which is not installed.",
            code="ray_not_installed",
            hint="pip install 'tessera[server,ray]'",
        )
    return settings.ray_address


def look_at_cluster(settings: Settings) -> ClusterState:
    """What the cluster of the settings has; raises `Unreachable`, and `ServiceError` as `require_ray` does."""
    bridge = _Bridge(require_ray(settings), _namespace(settings))
    try:
        return _state(bridge.ask("cluster"))
    finally:
        bridge.close()


class RayPlacement:
    """``command`` is what runs a job; its id and the number of the attempt are appended. Its Python is the node's."""

    def __init__(self, settings: Settings, *, fleet: FleetView, command: Sequence[str] = JOB_COMMAND) -> None:
        self._address = require_ray(settings)
        self._settings = settings
        self._fleet = fleet
        self._command = [part for part in command if part != sys.executable]
        self._bridge = _Bridge(self._address, _namespace(settings))
        self._cluster: ClusterState | None = None
        self._asked_at = float("-inf")
        self._problem: str | None = "connecting"
        self._held: set[str] | None = None  # names of the actors that there are, once they were looked for
        self._log_bytes: dict[str, int] = {}  # of an actor's log, that were kept

    def describe(self) -> str:
        return f"Ray at {self._address}: {self._problem or self._cluster}"

    def problem(self) -> str | None:
        return f"the Ray cluster at {self._address}: {self._problem}" if self._problem else None

    def waiting_for(self, spec: TargetSpec) -> str | None:
        if spec.is_gpu:
            return self._fleet.waiting_for(spec)  # built for only, wherever
        if self._cluster is None or f"{RESOURCE_PREFIX}{spec.name}" in self._cluster.total:
            return None
        if self._fleet.has_board(spec):
            return None
        return (
            f"a node of the Ray cluster that measures for {spec.name} "
            f"(ray start --resources='{{\"{RESOURCE_PREFIX}{spec.name}\": 1}}'), or a board of that target"
        )

    def occupied(self, spec: TargetSpec) -> str | None:
        lacking = [name for name, amount in self._needs(spec.name).items() if self._free(name) < amount]
        return f"a free place in the Ray cluster: {', '.join(lacking)} is in use" if lacking else None

    def start(self, claim: Claim) -> None:
        name = _name(claim.job_id, claim.attempt)
        needs = self._needs(claim.measured_target) if claim.measured_target else {}
        try:
            self._bridge.ask(
                "start",
                name=name,
                job_id=claim.job_id,
                command=[*self._command, claim.job_id, str(claim.attempt)],
                environment=self._environment(),
                needs=needs,
            )
        except Unreachable as error:
            self._lose(error)
            raise CannotStart(f"The job waits for the Ray cluster: {error}.") from error
        self._hold(name)
        self._log_bytes[name] = 0
        self._occupy(needs)

    def death(self, job: ActiveJob) -> Death | None:
        try:
            answer = self._look(_name(job.id, job.attempt))
        except Unreachable as error:
            self._lose(error)
            return None
        if "refused" in answer:
            raise CannotStart(f"The Ray cluster has no place for the job now: {answer['refused']}")
        if "gone" in answer:
            return Death(exit_code=None, cause=answer["gone"])
        return None if answer["exit_code"] is None else Death(exit_code=answer["exit_code"])

    def end(self, job: ActiveJob) -> bool:
        try:
            return self._end_actor(_name(job.id, job.attempt))
        except Unreachable as error:
            self._lose(error)
            return False

    def clear(self, job_id: str) -> None:
        remove_tree(self._settings.work_dir(job_id))  # where a node shares our disk

    def release(self, active: Mapping[str, int]) -> None:
        """Looks at the cluster too: this is called once a tick."""
        over = self._over(active)
        if self._problem is None and not over and time.monotonic() - self._asked_at < _FRESH_S:
            return
        try:
            self._cluster = _state(self._bridge.ask("cluster"))
            if self._held is None:
                self._held = set(self._bridge.ask("names")["names"])
                over = self._over(active)
            for name in over:
                while (answer := self._look(name)).get("log"):
                    pass  # the rest of its log
                if "pending" not in answer:
                    self._end_actor(name)
            self._problem = self._unfit()
        except Unreachable as error:
            self._lose(error)
        self._asked_at = time.monotonic()

    def close(self) -> None:
        self._bridge.close()

    def _over(self, active: Mapping[str, int]) -> set[str]:
        return (self._held or set()) - {_name(job_id, attempt) for job_id, attempt in active.items()}

    def _lose(self, error: Unreachable) -> None:
        self._problem, self._held = str(error), None

    def _hold(self, name: str) -> None:
        if self._held is not None:
            self._held.add(name)

    def _end_actor(self, name: str) -> bool:
        ended = bool(self._bridge.ask("end", name=name)["ended"])
        if ended:
            (self._held or set()).discard(name)
            self._log_bytes.pop(name, None)
        return ended

    def _look(self, name: str) -> dict[str, Any]:
        """What the actor of an attempt says; its log is kept."""
        answer = self._bridge.ask("look", name=name, known_bytes=self._log_bytes.get(name))
        if "log" in answer:
            path = self._settings.job_log(_job_of(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a") as log:
                log.write(answer["log"])
            self._log_bytes[name] = answer["log_bytes"]
        return answer

    def _unfit(self) -> str | None:
        """Why jobs of this cluster could not reach what they need."""
        several = self._cluster is not None and len(self._cluster.machines) > 1
        if several and (self._settings.database_url is None or self._settings.blobs_url is None):
            return (
                "it spans several machines, which cannot share SQLite and files on disk: set TESSERA_DATABASE_URL and "
                "TESSERA_BLOBS_URL"
            )
        return None

    def _needs(self, target: str) -> dict[str, float]:
        tag = f"{RESOURCE_PREFIX}{target}"
        tagged = self._cluster is not None and tag in self._cluster.total
        return {"CPU": 1.0, tag: 1.0} if tagged else {"CPU": 1.0}

    def _occupy(self, needs: Mapping[str, float]) -> None:
        """What was asked for is not free, though the cluster says so until it has come to it."""
        if self._cluster is not None:
            free = {name: amount - needs.get(name, 0.0) for name, amount in self._cluster.free.items()}
            self._cluster = replace(self._cluster, free=free)
            self._asked_at = time.monotonic()

    def _free(self, resource: str) -> float:
        return self._cluster.free.get(resource, 0.0) if self._cluster else 0.0

    def _environment(self) -> dict[str, str]:
        bucket = {name: value for name, value in os.environ.items() if name.startswith(_OF_THE_BUCKET)}
        return {**bucket, **self._settings.for_job_process(), "TESSERA_SIGNING_KEY": private_key_pem(self._settings)}


class _Bridge:
    """The bridge process (see `service.engine.ray_bridge`), started when it is needed and again when it has died."""

    def __init__(self, address: str, namespace: str) -> None:
        self._arguments = [address, namespace]
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""
        self._not_before = float("-inf")
        self._reason = ""

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """The answer to a request; raises `Unreachable`."""
        process = self._connected()
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            process.stdin.flush()
            answer = self._read(process, _ANSWERS_WITHIN_S)
        except OSError as error:
            raise self._given_up("the connection broke") from error
        if "error" in answer:
            raise self._given_up(answer["error"])
        return answer

    def close(self) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()  # it says goodbye and ends
        try:
            process.wait(_LEAVES_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def _connected(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            if time.monotonic() < self._not_before:
                raise Unreachable(self._reason)
            self._buffer = b""
            self._knock()
            self._process = subprocess.Popen(
                [*python_module("service.engine.ray_bridge"), *self._arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_OF_THE_BRIDGE},
            )
            answer = self._read(self._process, _CONNECTS_WITHIN_S)
            if "error" in answer:
                raise self._given_up(answer["error"])
        return self._process

    def _knock(self) -> None:
        """Ray tries for half a minute where nobody listens."""
        address = urlsplit(self._arguments[0])
        if address.scheme != "ray" or address.hostname is None:
            return
        try:
            socket.create_connection((address.hostname, address.port or _CLIENT_PORT), timeout=_TRY_AGAIN_S).close()
        except OSError as error:
            raise self._given_up(error.strerror or str(error)) from error

    def _read(self, process: subprocess.Popen[bytes], within_s: float) -> dict[str, Any]:
        assert process.stdout is not None
        deadline = time.monotonic() + within_s
        while b"\n" not in self._buffer:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not select.select([process.stdout], [], [], left_s)[0]:
                raise self._given_up(f"no answer within {within_s:.0f} s")
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                raise self._given_up("the connection broke")
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _given_up(self, reason: str) -> Unreachable:
        """Why, to be raised; until it is tried again nobody is told anything else."""
        self.close()
        self._reason, self._not_before = reason, time.monotonic() + _TRY_AGAIN_S
        return Unreachable(reason)


def _namespace(settings: Settings) -> str:
    """Of this installation's actors, which a cluster may hold beside another's: by its database."""
    database = make_url(settings.sqlalchemy_url).render_as_string(hide_password=True)
    return f"tessera-{hashlib.sha256(database.encode()).hexdigest()[:12]}"


def _name(job_id: str, attempt: int) -> str:
    return f"{job_id}/{attempt}"


def _job_of(name: str) -> str:
    return name.rpartition("/")[0]


def _state(answer: dict[str, Any]) -> ClusterState:
    return ClusterState(
        nodes=answer["nodes"], machines=tuple(answer["machines"]), total=answer["total"], free=answer["free"]
    )
