"""Builders of a job on other nodes of its Ray cluster: ``ray start --resources='{"builder": 6}'`` lends six cores.

A job takes half of the places that are free when it starts, rounded up, so that one that starts later finds some. They
are actors that the job's own actor owns: they end with it, whatever ends that.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from service.engine.processes import JOB_VARIABLE, python_module
from tuner.measure.build_workers import KEY_VARIABLE, BuildHost
from tuner.sandbox import Mode
from tuner.sandbox.limits import Limits, usual_processes
from tuner.sandbox.packages import compile_packages
from tuner.sandbox.start import Policy, start

RESOURCE = "builder"
_STARTS_WITHIN_S = 40.0
_ray: Any = ray  # what of it has no types


class BuilderActor:
    """A build host on its node (`tuner.measure.build_host`): a confined process that ends with the actor."""

    def __init__(self, job_id: str, key: str, mode: Mode) -> None:
        self._address = _ray.util.get_node_ip_address()
        folder = Path(tempfile.mkdtemp(prefix="tessera-builds-"))
        compile_packages()
        with socket.create_server((self._address, 0)) as listener:
            self._port = listener.getsockname()[1]
            self._process = start(
                [*python_module("tuner.measure.build_host"), str(listener.fileno())],
                Policy(work_dir=folder, limits=Limits(processes=usual_processes()), keeper=True, remove=True),
                mode=mode,
                environment={JOB_VARIABLE: job_id, KEY_VARIABLE: key},
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
            )
        threading.Thread(target=self._end_with_it, daemon=True).start()

    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._address, self._port

    def _end_with_it(self) -> None:
        self._process.wait()
        os._exit(0)


class Builders:
    """The builders that a job got, for as long as it needs them."""

    def __init__(self, job_id: str, mode: Mode) -> None:
        key = secrets.token_hex(32)
        places = -(-int(_ray.available_resources().get(RESOURCE, 0)) // 2)
        remote = _ray.remote(BuilderActor).options(num_cpus=0, resources={RESOURCE: 1}, scheduling_strategy="SPREAD")
        self._actors = [remote.remote(job_id, key, mode) for _ in range(places)]
        self.hosts: list[BuildHost] = []
        deadline = time.monotonic() + _STARTS_WITHIN_S
        for actor in list(self._actors):
            try:
                host, port = ray.get(actor.address.remote(), timeout=max(0.0, deadline - time.monotonic()))
            except RayError:  # another job was quicker, or it did not start
                self._actors.remove(actor)
                ray.kill(actor)
            else:
                self.hosts.append(BuildHost(host=host, port=port, key=key))

    def release(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []
