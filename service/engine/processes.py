"""Processes of jobs: recognizing one after a restart, and ending its whole tree.

Every process of a job carries ``TESSERA_JOB=<job id>`` in its environment, which children inherit: so a worker is
found even when its parent is dead and it made a session of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

JOB_VARIABLE = "TESSERA_JOB"
# The pid of a parent whose death ends the job process; without it the process outlives its parent.
PARENT_VARIABLE = "TESSERA_JOB_PARENT"
_ROOT = Path(__file__).parents[2]
_SWEEP_S = 0.05
# Start times come from the kernel in clock ticks (10 ms); the boot time that is added may shift a little.
_SAME_START_S = 1.0


def python_module(name: str) -> tuple[str, ...]:
    """The command that runs a module of ours; -P keeps the folder that we happen to be in out of its path."""
    return (sys.executable, "-P", "-m", name)


# What runs a job; its id and the number of the attempt are appended.
JOB_COMMAND = python_module("service.job_process")


# What a process that runs a model has no use for.
_OF_THE_SERVER = frozenset({"TESSERA_BOOTSTRAP_TOKEN", "TESSERA_TOKEN"})


def child_environment(job_id: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Our environment with the job's mark, for a child that imports the packages that this process runs."""
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_THE_SERVER}
    return {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", JOB_VARIABLE: job_id, **(extra or {})}


def start_time(pid: int) -> float:
    """When the process started, in seconds since the epoch; raises psutil.NoSuchProcess."""
    return float(psutil.Process(pid).create_time())


def is_alive(pid: int, started_at: float) -> bool:
    """Whether this very process (and not another with a recycled pid) is running; a zombie is not."""
    try:
        process = psutil.Process(pid)
        same = abs(float(process.create_time()) - started_at) < _SAME_START_S
        return same and bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def end_job_processes(job_id: str, *, pid: int | None, started_at: float | None, within_s: float = 4.0) -> bool:
    """Kill everything that belongs to a job; True when nothing of it is left.

    The job's own process is stopped first and killed last: processes that lose their parent come to it, so that none
    gets out of sight, whatever it has done to its mark. Sweeps until a look finds none: what was forked between a look
    and its kill is caught by the next one.
    """
    deadline = time.monotonic() + within_s
    root = _process(pid, started_at)
    if root is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            root.suspend()
    while True:
        found = _family(job_id, root)
        if not found and root is not None:
            found, root = [root], None
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if not found:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_SWEEP_S)


def _process(pid: int | None, started_at: float | None) -> psutil.Process | None:
    if pid is None or started_at is None or not is_alive(pid, started_at):
        return None
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess:
        return None


def _family(job_id: str, root: psutil.Process | None) -> list[psutil.Process]:
    """What lives of a job but its own process: what that has started, and what carries the mark."""
    family: dict[int, psutil.Process] = {}
    if root is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            family = {process.pid: process for process in root.children(recursive=True)}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if process.pid not in family and process.environ().get(JOB_VARIABLE) == job_id:
                family[process.pid] = process
    others = {os.getpid(), root.pid if root is not None else None}
    return [process for process in family.values() if process.pid not in others and _running(process)]


def _running(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
