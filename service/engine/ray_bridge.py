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
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from service.engine.build_hosts import told_of
from service.engine.processes import PARENT_VARIABLE, child_environment, end_job_processes, start_time
from service.engine.ray_builders import Builders
from service.engine.ray_protocol import RESOURCE_PREFIX
from tuner.sandbox import Mode

_STARTS_WITHIN_S = 45.0
_ANSWERS_WITHIN_S = 8.0
_ENDS_WITHIN_S = 15.0
# An actor that has not started has nothing to end, or it goes with the actor.
_STARTING_ENDS_WITHIN_S = 2.0
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
class _Starting:
    """What an actor was asked that may not have started: a cluster takes seconds for that, or has no place for it."""

    look: Any
    until: float  # on the monotonic clock


class Bridge:
    """The operations of the protocol: each method is one, its arguments are the request's."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._starting: dict[str, _Starting] = {}
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
        self._starting[name] = _Starting(actor.look.remote(0), time.monotonic() + _STARTS_WITHIN_S)
        return {}

    def look(self, name: str, known_bytes: int | None) -> dict[str, Any]:
        """What `JobActor.look` says; ``gone`` says why there is nobody to ask, ``refused`` why there never was."""
        starting = self._starting.get(name)
        if starting is not None:
            return self._first_look(name, starting) or _nothing_new(known_bytes)
        try:
            return dict(ray.get(self._actor(name).look.remote(known_bytes), timeout=_ANSWERS_WITHIN_S))
        except GetTimeoutError:
            return _nothing_new(known_bytes)  # busy or cut off: the heartbeat tells
        except ValueError:
            return {"gone": "its place in the Ray cluster is gone"}
        except RayActorError as error:
            return {"gone": f"its place in the Ray cluster is gone: {_first_line(error)}"}

    def end(self, name: str) -> dict[str, Any]:
        """End the job's processes and its actor."""
        starting = self._starting.pop(name, None)
        within_s = _ENDS_WITHIN_S if starting is None else _STARTING_ENDS_WITHIN_S
        try:
            actor = self._actor(name)
            ended = bool(ray.get(actor.end.remote(), timeout=within_s))
        except ValueError:
            return {"ended": True}
        except GetTimeoutError:
            ended = starting is not None
        except RayActorError:
            ended = True
        if ended:
            self._kill(name)
        return {"ended": ended}

    def names(self) -> dict[str, Any]:
        """The names of all actors of this namespace."""
        actors = ray.util.list_named_actors(all_namespaces=True)
        return {"names": [actor["name"] for actor in actors if actor["namespace"] == self._namespace]}

    def _first_look(self, name: str, starting: _Starting) -> dict[str, Any] | None:
        """None while the actor may still start."""
        answered = ray.wait([starting.look], timeout=0)[0]
        if not answered and time.monotonic() < starting.until:
            return None
        del self._starting[name]
        refused = f"it did not start within {_STARTS_WITHIN_S:.0f} s"
        if answered:
            try:
                return dict(ray.get(starting.look))
            except RayActorError as error:
                refused = _first_line(error)
        self._kill(name)
        return {"refused": refused}

    def _actor(self, name: str) -> Any:
        """Raises ValueError where there is none of that name."""
        if name not in self._actors:
            self._actors[name] = ray.get_actor(name, self._namespace)
        return self._actors[name]

    def _kill(self, name: str) -> None:
        ray.kill(self._actors.pop(name))


def _nothing_new(known_bytes: int | None) -> dict[str, Any]:
    return {"exit_code": None, "log": "", "log_bytes": known_bytes}


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
