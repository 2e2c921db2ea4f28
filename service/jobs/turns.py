"""Whose turn it is: those who wait in the queue take turns, and of one's own jobs the oldest is the next.

Who a job is of says its project and the token that it was started with. Whoever had no job started yet comes before
those who had; then whoever had one started longest ago.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from sqlalchemy import ScalarSelect, func, select
from sqlalchemy.orm import aliased

from service.database import Database
from service.database.tables import Job
from service.jobs.states import JobState

_other = aliased(Job)  # takes longer to make than all that is asked with it
_of_same_user = (_other.project == Job.project, _other.submitted_by == Job.submitted_by)
LAST_TURN: ScalarSelect[Any] = (
    select(func.max(_other.started_at)).where(*_of_same_user).correlate(Job).scalar_subquery()
)
"""When a job of the same user was started last, in a query of jobs; NULL where none was."""


def queue_positions(database: Database) -> dict[str, int]:
    """The places of all waiting jobs, by their ids: 1 for the next one to start."""
    query = (
        select(Job.id, Job.project, Job.submitted_by)
        .where(Job.state == JobState.QUEUED.value)
        .order_by(LAST_TURN.nulls_first(), Job.id)
    )
    users: dict[tuple[str, str], deque[str]] = {}
    with database.read() as session:
        for job_id, project, submitted_by in session.execute(query):
            users.setdefault((project, submitted_by), deque()).append(job_id)
    order: list[str] = []
    while users:
        order += [jobs.popleft() for jobs in users.values()]
        users = {user: jobs for user, jobs in users.items() if jobs}
    return {job_id: place for place, job_id in enumerate(order, start=1)}
