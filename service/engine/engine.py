"""The engine: a thread of the server that starts jobs, watches them, and settles what died.

A job process works for the database, not for the server: when the server stops or is killed, the job goes on and
writes its records and its result by itself, and the next server adopts it (or resumes it, if it has died meanwhile).
Stopping a server for an upgrade therefore costs no tuning time; `tessera jobs cancel` ends a job.

The database is the only truth about jobs: each tick compares it with the processes that there are, so that whatever
a placement forgets (a Ray cluster its actors, with its head) is started again, once: a new attempt is claimed in one
statement, and from then on the database takes nothing of an older one.
"""

from __future__ import annotations

import logging
import threading
import time

from service.database import Database
from service.disk_guard import shortage
from service.engine.placement import CannotStart, Placement
from service.jobs import queue
from service.jobs.deaths import Death, settle
from service.jobs.states import FINAL_STATES, JobState
from service.queries.jobs import get_state
from service.settings import Settings
from tuner.sandbox.strength import strength
from tuner.targets import TargetSpec

# How often processes are looked at. A cancellation or a new job wakes the thread at once.
_TICK_S = 0.25
# What failed is not tried, and not logged, more often than that: the log may lie on the disk that is full.
_PAUSE_AFTER_FAILURE_S = 2.0
# Connecting to a Ray cluster may take as long.
_ANSWERS_WITHIN_S = 60.0
_STOP_WITHIN_S = 10.0
_NO_PLACE_DELAY_S = 5.0

log = logging.getLogger(__name__)


class Engine:
    """Runs up to ``settings.max_parallel_jobs`` jobs at once; with 0 it only watches and cancels."""

    def __init__(self, settings: Settings, database: Database, placement: Placement) -> None:
        self._settings = settings
        self._database = database
        self._placement = placement
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._last_tick = time.monotonic()
        self._outlived: set[str] = set()  # jobs whose processes were still there when they were ended

    def start(self) -> None:
        if self._settings.sandbox == "off" or strength().missing:
            log.warning("the sandbox of models: %s", strength().describe(self._settings.sandbox))
        self._thread = threading.Thread(target=self._run, name="tessera-engine", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. The job processes go on; whoever opens the data directory next adopts them."""
        self._stopping.set()
        self._woken.set()
        if self._thread is not None:
            self._thread.join(_STOP_WITHIN_S)
        self._placement.close()

    def wake(self) -> None:
        """Look at the queue now: something was added or cancelled."""
        self._woken.set()

    def problem(self) -> str | None:
        """Why jobs do not start or are not watched now; None when the engine works."""
        if self._thread is None or not self._thread.is_alive():
            return "its thread has ended"
        if time.monotonic() - self._last_tick > _ANSWERS_WITHIN_S:
            return "it does not answer"
        return self._placement.problem()

    def describe(self) -> str:
        return f"{self._placement.describe()}, at most {self._settings.max_parallel_jobs} jobs at once"

    def waiting_for(self, spec: TargetSpec) -> str | None:
        """What a job that is measured on the target would wait for; None where something can measure it."""
        return self._placement.waiting_for(spec)

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
        """One look at everything: ended processes first, then cancellations, then the queue."""
        active = queue.active_jobs(self._database)
        self._placement.release({job.id: job.attempt for job in active})
        running = 0
        for job in active:
            if job.state == JobState.CANCELLING:
                self._cancel(job)
            elif not self._settle_if_dead(job):
                running += 1
        while running < self._settings.max_parallel_jobs and not self._stopping.is_set():
            short = shortage(self._settings)
            paused = short.waiting_for if short else self._placement.problem()
            claim = queue.claim_next(self._database, waiting=self._waiting(), paused=paused)
            if claim is None or not self._start(claim):
                break
            running += 1

    def _waiting(self) -> dict[queue.OwnTarget, str]:
        """What jobs of targets that nothing can measure now are waiting for, by target."""
        targets = queue.measured_targets(self._database)
        specs = {name: TargetSpec.from_dict(spec) for name, spec in targets.items()}
        places = self._placement
        reasons = {name: places.waiting_for(spec) or places.occupied(spec) for name, spec in specs.items()}
        return {name: reason for name, reason in reasons.items() if reason is not None}

    def _start(self, claim: queue.Claim) -> bool:
        try:
            self._placement.start(claim)
        except CannotStart as reason:
            self._give_back(claim.job_id, claim.attempt, reason)
            return False
        except OSError as error:
            self._settle(claim.job_id, Death(exit_code=None, cause=f"it could not be started: {error}"))
            return False
        log.info("attempt %d of job %s started", claim.attempt, claim.job_id)
        return True

    def _give_back(self, job_id: str, attempt: int, reason: CannotStart) -> None:
        queue.requeue(self._database, job_id, reason=str(reason), attempt=attempt, after_s=_NO_PLACE_DELAY_S)

    def _settle_if_dead(self, job: queue.ActiveJob) -> bool:
        """True when the job has no process (any more)."""
        try:
            death = self._placement.death(job)
        except CannotStart as reason:
            self._give_back(job.id, job.attempt, reason)
            return True
        if death is None and job.silent_s > self._settings.heartbeat_timeout_s:
            death = Death(exit_code=None, cause=f"it was silent for {job.silent_s:.0f} s and was ended")
        if death is None:
            return False
        self._placement.end(job)
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
            self._placement.clear(job_id)

    def _cancel(self, job: queue.ActiveJob) -> None:
        if not self._placement.end(job):
            if job.id not in self._outlived:
                log.error("processes of job %s have not ended yet; it stays cancelling until they have", job.id)
                self._outlived.add(job.id)
            return  # the next tick tries again; the job stays "cancelling" until its processes are gone
        self._outlived.discard(job.id)
        self._placement.clear(job.id)
        queue.finish(self._database, job.id, JobState.CANCELLED)
        log.info("job %s cancelled", job.id)
