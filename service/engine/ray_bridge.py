"""``python -m service.engine.ray_bridge ADDRESS NAMESPACE``: talks to a Ray cluster for the server.

It is a process of its own: when the head of a cluster dies, Ray ends the processes that are connected to it. That may
be this one, and never the server: it starts another, which finds the jobs' actors by their names. Requests and answers
are lines of JSON on standard input and output, one answer for each request, in order.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import ray
from ray.exceptions import RayActorError, RayError

from service.engine.build_hosts import told_of
from service.engine.processes import PARENT_VARIABLE, child_environment, end_job_processes, start_time
from service.engine.ray_builders import Builders
from service.engine.ray_protocol import RESOURCE_PREFIX
from tuner.sandbox import Mode

_STARTS_WITHIN_S = 90.0
# Nobody waits longer for an answer, and once: another job may be to be cancelled. What was asked is looked at again.
_ANSWERS_WITHIN_S = 0.2
_ENDS_WITHIN_S = 2.0
# How long a server may be away, to start again for instance, and still be told how a job ended.
_LINGERS_S = 120.0
_LOG_BYTES = 256 * 1024
_ray: Any = ray  # what of it has no types


class JobActor:
    """One attempt of a job on its node: a process of the same kind as on a single machine, and its log.

    The process ends with the actor, whatever ends that. When it has ended and nobody comes to see, the actor goes, and
    its place is free.
    """

    def __init__(self, job_id: str, command: Sequence[str], environment: dict[str, str]) -> None:
        self._job_id = job_id
        self._log = Path(tempfile.mkdtemp(prefix="tessera-job-")) / "job.log"
        self._told_bytes = 0
        end_job_processes(job_id, pid=None, started_at=None)  # what an earlier attempt left here
        self._builders = Builders(job_id, cast(Mode, environment.get("TESSERA_SANDBOX", "auto")))
        told = {**environment, **told_of(self._builders.hosts), PARENT_VARIABLE: str(os.getpid())}
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=child_environment(job_id, told),
            )
        self._started_at = start_time(self._process.pid)
        threading.Thread(target=self._leave_in_the_end, daemon=True).start()

    def look(self, known_bytes: int | None) -> dict[str, Any]:
        """The exit code, None while the process runs, and what its log has after the first ``known_bytes`` (None: where
        the last look ended)."""
        exit_code = self._process.poll()
        start = self._told_bytes if known_bytes is None else known_bytes
        with self._log.open("rb") as log:
            log.seek(start)
            new = log.read(_LOG_BYTES)
        self._told_bytes = start + len(new)
        return {"exit_code": exit_code, "log": new.decode(errors="replace"), "log_bytes": self._told_bytes}

    def _leave_in_the_end(self) -> None:
        self._process.wait()
        self._builders.release()
        time.sleep(_LINGERS_S)
        self._forget_log()
        os._exit(0)

    def _forget_log(self) -> None:
        with contextlib.suppress(OSError):
            self._log.unlink()
            self._log.parent.rmdir()

    def end(self) -> bool:
        """Kill the process and all of its family; True when nothing of them is left."""
        ended = end_job_processes(self._job_id, pid=self._process.pid, started_at=self._started_at)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=1)
        if ended:
            self._forget_log()
        return ended


@dataclass(frozen=True)
class _Asked:
    """What an actor was asked and has not answered yet: it is busy, its node stands still, or it has not started, for
    which a cluster takes seconds, if it has a place for it at all."""

    answer: Any
    starts_until: float | None = None  # on the monotonic clock, of one that may not have started


class Bridge:
    """The operations of the protocol: each method is one, its arguments are the request's."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._looks: dict[str, _Asked] = {}
        self._ends: dict[str, _Asked] = {}
        self._actors: dict[str, Any] = {}  # the first call of one that was looked up takes seconds

    def cluster(self) -> dict[str, Any]:
        """What the cluster has, and what of it is free."""
        nodes = [node for node in _ray.nodes() if node["Alive"]]
        return {
            "machines": sorted({node["NodeManagerAddress"] for node in nodes}),
            "nodes": len(nodes),
            "total": _ray.cluster_resources(),
            "free": _ray.available_resources(),
        }

    def start(
        self, name: str, job_id: str, command: list[str], environment: dict[str, str], needs: dict[str, float]
    ) -> dict[str, Any]:
        """Ask for a job's actor. Whether there is a place for it `look` tells."""
        tags = {resource: amount for resource, amount in needs.items() if resource.startswith(RESOURCE_PREFIX)}
        remote = ray.remote(JobActor).options(
            name=name,
            namespace=self._namespace,
            lifetime="detached",
            num_cpus=needs.get("CPU", 0),
            resources=tags,
            max_restarts=0,
            get_if_exists=True,
        )
        actor: Any = remote.remote(job_id, command, environment)
        self._actors[name] = actor
        self._looks[name] = _Asked(actor.look.remote(0), time.monotonic() + _STARTS_WITHIN_S)
        return {}

    def look(self, name: str, known_bytes: int | None) -> dict[str, Any]:
        """What `JobActor.look` says; ``gone`` says why there is nobody to ask, ``refused`` why there never was,
        ``pending`` that the answer has yet to come."""
        before = self._looks.pop(name, None)
        try:
            asked = before or _Asked(self._actor(name).look.remote(known_bytes))
        except ValueError:
            return {"gone": "its place in the Ray cluster is gone"}
        starts_until = asked.starts_until
        if not _answered(asked, within_s=0.0 if before else _ANSWERS_WITHIN_S):
            if starts_until is not None and time.monotonic() > starts_until:
                return self._refuse(name, f"it did not start within {_STARTS_WITHIN_S:.0f} s")
            self._looks[name] = asked
            return {"exit_code": None, "pending": True}  # the heartbeat tells when it is too late
        try:
            return dict(ray.get(asked.answer))
        except RayActorError as error:
            if starts_until is not None:
                return self._refuse(name, _first_line(error))
            return {"gone": f"its place in the Ray cluster is gone: {_first_line(error)}"}

    def end(self, name: str) -> dict[str, Any]:
        """End the job's processes and its actor; False while they have not ended."""
        look = self._looks.pop(name, None)
        starting = look is not None and look.starts_until is not None and not _answered(look, within_s=0.0)
        before = self._ends.pop(name, None)
        try:
            asked = before or _Asked(self._actor(name).end.remote())
        except ValueError:
            return {"ended": True}
        try:
            if _answered(asked, within_s=0.0 if before else _ENDS_WITHIN_S):
                ended = bool(ray.get(asked.answer))
            else:
                # One that has not started has nothing to end, or that goes with the actor.
                ended = starting
                self._ends[name] = asked
        except RayActorError:
            ended = True
        if ended:
            self._kill(name)
        return {"ended": ended}

    def names(self) -> dict[str, Any]:
        """The names of all actors of this namespace."""
        actors = ray.util.list_named_actors(all_namespaces=True)
        return {"names": [actor["name"] for actor in actors if actor["namespace"] == self._namespace]}

    def _refuse(self, name: str, reason: str) -> dict[str, Any]:
        self._kill(name)
        return {"refused": reason}

    def _actor(self, name: str) -> Any:
        """Raises ValueError where there is none of that name."""
        if name not in self._actors:
            self._actors[name] = ray.get_actor(name, self._namespace)
        return self._actors[name]

    def _kill(self, name: str) -> None:
        self._ends.pop(name, None)
        ray.kill(self._actors.pop(name))


def _answered(asked: _Asked, *, within_s: float) -> bool:
    return bool(ray.wait([asked.answer], timeout=within_s)[0])


def main() -> None:
    address, namespace = sys.argv[1:]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever Ray prints is no answer
    try:
        ray.init(address=address, namespace=namespace, log_to_driver=False, logging_level=logging.ERROR)
    except (RayError, RuntimeError, ConnectionError, ValueError) as error:
        _answer(answers, {"error": _first_line(error)})
        sys.exit(1)
    _answer(answers, {})
    bridge = Bridge(namespace)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = getattr(bridge, request.pop("do"))(**request)
        except (RayError, RuntimeError, ConnectionError) as error:
            answer = {"error": _first_line(error)}
        _answer(answers, answer)


def _answer(answers: TextIO, answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=answers, flush=True)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


if __name__ == "__main__":
    main()
