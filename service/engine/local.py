"""Jobs as child processes of the server, on its own machine."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping, Sequence

import psutil

from service.database import Database
from service.engine.processes import JOB_COMMAND, child_environment, end_job_processes, is_alive, start_time
from service.fleet import FleetView
from service.jobs import queue
from service.jobs.deaths import Death
from service.settings import Settings
from tuner.sandbox.files import remove_tree
from tuner.sandbox.strength import strength
from tuner.targets import TargetSpec

# A process that gave its job back has nothing left to do.
_ENDS_WITHIN_S = 5.0


class LocalPlacement:
    """``command`` is what runs a job; its id and the number of the attempt are appended.

    A job process is in a session of its own and outlives the server: it is found again by its pid and start time.
    """

    def __init__(
        self, settings: Settings, database: Database, *, fleet: FleetView, command: Sequence[str] = JOB_COMMAND
    ) -> None:
        self._fleet = fleet
        self._settings = settings
        self._database = database
        self._command = list(command)
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def describe(self) -> str:
        return "local"

    def problem(self) -> str | None:
        if self._settings.sandbox != "required":
            return None
        missing = strength().missing
        return f"jobs cannot be confined here: {'; '.join(missing)} (TESSERA_SANDBOX=required)" if missing else None

    def waiting_for(self, spec: TargetSpec) -> str | None:
        return self._fleet.waiting_for(spec)

    def occupied(self, spec: TargetSpec) -> str | None:
        return None

    def start(self, claim: queue.Claim) -> None:
        self._forget(claim.job_id)  # it may have put itself back into the queue a moment ago
        log_path = self._settings.job_log(claim.job_id)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as output:
            child = subprocess.Popen(
                [*self._command, claim.job_id, str(claim.attempt)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=child_environment(claim.job_id, self._settings.for_job_process()),
            )
        self._children[claim.job_id] = child
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already: the next tick settles that
            queue.set_process(self._database, claim.job_id, pid=child.pid, started_at=start_time(child.pid))

    def death(self, job: queue.ActiveJob) -> Death | None:
        child = self._children.get(job.id)
        if child is not None:
            exit_code = child.poll()
            return None if exit_code is None else Death(exit_code=exit_code)
        if job.pid is not None and job.pid_started_at is not None and is_alive(job.pid, job.pid_started_at):
            return None
        return Death(exit_code=None)

    def end(self, job: queue.ActiveJob) -> bool:
        ended = end_job_processes(job.id, pid=job.pid, started_at=job.pid_started_at)
        if ended:
            self._forget(job.id)
        return ended

    def clear(self, job_id: str) -> None:
        remove_tree(self._settings.work_dir(job_id))

    def release(self, active: Mapping[str, int]) -> None:
        """A job that ended well leaves a child to be waited for, and perhaps workers that forgot to end."""
        for job_id in [job_id for job_id in self._children if job_id not in active]:
            if self._children[job_id].poll() is not None:
                end_job_processes(job_id, pid=None, started_at=None)
                self._forget(job_id)

    def close(self) -> None:
        for child in self._children.values():
            # The child is left alone on purpose: Popen would warn of it when it is collected.
            child.returncode = child.poll() or 0  # a guess for a living one: nobody reads it
        self._children.clear()

    def _forget(self, job_id: str) -> None:
        child = self._children.pop(job_id, None)
        if child is not None:
            try:
                child.wait(timeout=_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                child.kill()  # the job is no longer its own
                child.wait()
