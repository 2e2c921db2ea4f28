"""What follows from the death of a job's process: try again from its records, or give up and say why."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from sqlalchemy import func, select

from service.database import Database
from service.database.tables import Job, TrialRecord
from service.disk_guard import Shortage
from service.jobs import queue
from service.jobs.states import JobState

# Signals that a process raises by its own fault. SIGKILL is not among them: it comes from outside (a person, or
# the kernel short of memory), and trying again may well help.
NATIVE_CRASHES = frozenset({signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGBUS, signal.SIGFPE})
_CRASHES_IN_ONE_STAGE = 2


@dataclass(frozen=True, kw_only=True)
class Death:
    """How a process ended: ``exit_code`` as `subprocess` gives it (negative: a signal), None when unknown."""

    exit_code: int | None
    cause: str = ""

    @property
    def signal(self) -> signal.Signals | None:
        if self.exit_code is None or self.exit_code >= 0:
            return None
        try:
            return signal.Signals(-self.exit_code)
        except ValueError:
            return None

    def __str__(self) -> str:
        if self.cause:
            return self.cause
        if self.exit_code is None:
            return "it ended while no server watched it"
        return f"signal {self.signal.name}" if self.signal else f"exit code {self.exit_code}"


def settle(
    database: Database,
    job_id: str,
    death: Death,
    *,
    max_attempts_without_record: int,
    shortage: Shortage | None = None,
) -> None:
    """Decide about a job whose process is gone. Nothing happens when the job has ended or waits already.

    A death during a ``shortage`` of disk space is not held against the job: whatever it died of may come from that.
    """
    with database.read() as session:
        job = session.get(Job, job_id)
        if job is None:
            return
        records = session.scalar(select(func.count()).select_from(TrialRecord).where(TrialRecord.job_id == job_id)) or 0
    if job.state == JobState.CANCELLING:
        queue.finish(database, job_id, JobState.CANCELLED)
        return
    if job.state != JobState.RUNNING:
        return

    where = f" in stage {job.stage}" if job.stage else " before its first stage"
    if shortage is not None:
        reason = f"The job's process died{where} ({death}) while {shortage}; it resumes from its {records} records."
        queue.requeue(database, job_id, reason=reason, crash=job.crash, barren_attempts=job.barren_attempts)
        return
    crash = None
    if death.signal in NATIVE_CRASHES:
        crash = f"{death.signal.name}:{job.stage or ''}:1"
        if job.crash and job.crash.rpartition(":")[0] == crash.rpartition(":")[0]:
            times = int(job.crash.rpartition(":")[2]) + 1
            crash = f"{crash.rpartition(':')[0]}:{times}"
            if times >= _CRASHES_IN_ONE_STAGE:
                error = {
                    "code": "compiler_crashed",
                    "message": f"The compiler crashed {times} times{where} ({death}).",
                    "hint": "The model makes the compiler crash; the log has its last output. "
                    "Export the model with another opset or simplify it, and please report it.",
                    "details": {"signal": death.signal.name, "stage": job.stage},
                }
                queue.finish(database, job_id, JobState.FAILED, error=error)
                return

    barren = 0 if records > job.records_at_claim else job.barren_attempts + 1
    if barren >= max_attempts_without_record:
        error = {
            "code": "job_died",
            "message": f"The job's process died {barren} times in a row without a new record; last{where} ({death}).",
            "hint": "The log has its last output. Check free memory and disk space, then start the job again: "
            "a new job begins with the records that are there.",
        }
        queue.finish(database, job_id, JobState.FAILED, error=error)
        return
    reason = f"The job's process died{where} ({death}); it resumes from its {records} records."
    queue.requeue(database, job_id, reason=reason, crash=crash, barren_attempts=barren)
