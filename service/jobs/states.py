"""The states of a job, each listed once with the states that may follow it."""

from __future__ import annotations

from enum import StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# running → queued: its process died and the job resumes from its records. A job that is being cancelled only
# ends as cancelled, even when its process finished in the same moment: the person was told so.
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED, JobState.FAILED}),
    JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLING}),
    JobState.CANCELLING: frozenset({JobState.CANCELLED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
}

FINAL_STATES = frozenset(state for state, following in TRANSITIONS.items() if not following)
ACTIVE_STATES = frozenset({JobState.RUNNING, JobState.CANCELLING})


def sources_of(state: JobState) -> frozenset[JobState]:
    """The states from which ``state`` may be reached."""
    return frozenset(source for source, following in TRANSITIONS.items() if state in following)
