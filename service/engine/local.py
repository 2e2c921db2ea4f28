"""The local engine: a thread of the server that runs each job as a child process and watches it.

A job process is in a session of its own and outlives the server: when the server stops or is killed, the job goes on
and writes its records and its result into the database by itself, and the next server adopts it (or resumes it, if it
has died meanwhile). Stopping a server for an upgrade therefore costs no tuning time; `tessera jobs cancel` ends a job.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence

import psutil

from service.database import Database
from service.disk_guard import shortage
from service.engine.processes import child_environment, end_job_processes, is_alive, python_module, start_time
from service.fleet import FleetView
from service.jobs import queue
from service.jobs.deaths import Death, settle
from service.jobs.states import FINAL_STATES, JobState
from service.queries.jobs import get_state
from service.settings import Settings
from tuner.targets import TargetSpec

# How often children are looked at. A cancellation or a new job wakes the thread at once.
_TICK_S = 0.25
# What failed is not tried, and not logged, more often than that: the log may lie on the disk that is full.
_PAUSE_AFTER_FAILURE_S = 2.0
_ANSWERS_WITHIN_S = 15.0
_STOP_WITHIN_S = 10.0

log = logging.getLogger(__name__)


class LocalEngine:
    """Runs up to ``settings.max_parallel_jobs`` jobs at once; with 0 it only watches and cancels.

    ``command`` is what runs a job; its id is appended.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        fleet: FleetView | None = None,
        command: Sequence[str] = python_module("service.job_process"),
    ) -> None:
        self._fleet = fleet or FleetView(None)
        self._settings = settings
        self._database = database
        self._command = list(command)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_tick = time.monotonic()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="tessera-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. The job processes go on; whoever opens the data directory next adopts them."""
        self._stopping.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(_STOP_WITHIN_S)
        for child in self._children.values():
            # The child is left alone on purpose: Popen would warn of it when it is collected.
            child.returncode = child.poll() or 0  # a guess for a living one: nobody reads it
        self._children.clear()

    def wake(self) -> None:
        """Look at the queue now: something was added or cancelled."""
        self._woken.set()

    def answers(self) -> bool:
        """Whether the thread is alive and came around lately."""
        alive = self._thread is not None and self._thread.is_alive()
        return alive and time.monotonic() - self._last_tick < _ANSWERS_WITHIN_S

    def describe(self) -> str:
        return f"local, at most {self._settings.max_parallel_jobs} jobs at once"

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            pause_s = _TICK_S
            try:
                self.tick()
            except Exception:  # a full disk or a locked database must not end the supervision
                log.exception("the engine failed at its work and goes on")
                pause_s = _PAUSE_AFTER_FAILURE_S
            self._last_tick = time.monotonic()
            self._woken.wait(pause_s)

    def tick(self) -> None:
        """One look at everything: ended children first, then cancellations, then the queue."""
        active = queue.active_jobs(self._database)
        self._reap_children_of_ended_jobs({job.id for job in active})
        running = 0
        for job in active:
            if job.state == JobState.CANCELLING:
                self._cancel(job)
            elif not self._settle_if_dead(job):
                running += 1
        while running < self._settings.max_parallel_jobs and not self._stopping.is_set():
            short = shortage(self._settings)
            paused = short.waiting_for if short else None
            job_id = queue.claim_next(self._database, waiting=self._waiting(), paused=paused)
            if job_id is None:
                break
            self._spawn(job_id)
            running += 1

    def _waiting(self) -> dict[str, str]:
        """What jobs of targets that nothing can measure now are waiting for, by target."""
        targets = queue.measured_targets(self._database)
        reasons = {name: self._fleet.waiting_for(TargetSpec.from_dict(spec)) for name, spec in targets.items()}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def _spawn(self, job_id: str) -> None:
        self._forget(job_id)  # it may have put itself back into the queue a moment ago
        log_path = self._settings.job_log(job_id)
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            with log_path.open("ab") as output:
                child = subprocess.Popen(
                    [*self._command, job_id],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=self._environment(job_id),
                )
        except OSError as error:
            self._settle(job_id, Death(exit_code=None, cause=f"it could not be started: {error}"))
            return
        self._children[job_id] = child
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended already: the next tick settles that
            queue.set_process(self._database, job_id, pid=child.pid, started_at=start_time(child.pid))
        log.info("job %s started, process %d", job_id, child.pid)

    def _environment(self, job_id: str) -> dict[str, str]:
        extra = {"TESSERA_DATA_DIR": str(self._settings.data_dir)}
        if self._settings.database_url is not None:
            extra["TESSERA_DATABASE_URL"] = self._settings.database_url
        if self._settings.blobs_url is not None:
            extra["TESSERA_BLOBS_URL"] = self._settings.blobs_url
            extra["TESSERA_BLOB_CACHE_BYTES"] = str(self._settings.blob_cache_bytes)
        if self._settings.tracker is not None:
            extra["TESSERA_TRACKER"] = self._settings.tracker
        return child_environment(job_id, extra)

    def _settle_if_dead(self, job: queue.ActiveJob) -> bool:
        """True when the job has no process (any more)."""
        child = self._children.get(job.id)
        if child is not None:
            exit_code = child.poll()
            death = None if exit_code is None else Death(exit_code=exit_code)
        elif job.pid is not None and job.pid_started_at is not None and is_alive(job.pid, job.pid_started_at):
            death = None
        else:
            death = Death(exit_code=None)
        if death is None and job.silent_s > self._settings.heartbeat_timeout_s:
            death = Death(exit_code=None, cause=f"it was silent for {job.silent_s:.0f} s and was ended")
        if death is None:
            return False
        end_job_processes(job.id, pid=job.pid, started_at=job.pid_started_at)
        self._forget(job.id)
        self._settle(job.id, death)
        return True

    def _settle(self, job_id: str, death: Death) -> None:
        log.warning("the process of job %s ended: %s", job_id, death)
        settle(
            self._database,
            job_id,
            death,
            max_attempts_without_record=self._settings.max_attempts_without_record,
            shortage=shortage(self._settings),
        )
        if get_state(self._database, job_id) in FINAL_STATES:
            shutil.rmtree(self._settings.work_dir(job_id), ignore_errors=True)

    def _cancel(self, job: queue.ActiveJob) -> None:
        if not end_job_processes(job.id, pid=job.pid, started_at=job.pid_started_at):
            log.error("processes of job %s survive being killed", job.id)
            return  # the next tick tries again; the job stays "cancelling" until its processes are gone
        self._forget(job.id)
        shutil.rmtree(self._settings.work_dir(job.id), ignore_errors=True)
        queue.finish(self._database, job.id, JobState.CANCELLED)
        log.info("job %s cancelled", job.id)

    def _reap_children_of_ended_jobs(self, active: set[str]) -> None:
        """A job that ended well leaves a child to be waited for, and perhaps workers that forgot to end."""
        for job_id in [job_id for job_id in self._children if job_id not in active]:
            if self._children[job_id].poll() is not None:
                end_job_processes(job_id, pid=None, started_at=None)
                self._forget(job_id)

    def _forget(self, job_id: str) -> None:
        child = self._children.pop(job_id, None)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=1)
