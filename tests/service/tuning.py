"""Seeded jobs, records and workloads."""

from __future__ import annotations

from sqlalchemy import select

from service.database import Database, ProjectDatabase
from service.database.tables import Job, Model
from service.jobs import queue
from tests.service.trials import FINGERPRINT, record, workload

__all__ = ["FINGERPRINT", "add_job", "claimed", "record", "workload"]


def claimed(database: Database) -> str | None:
    """The id of the job whose turn it is; it is running from now on."""
    claim = queue.claim_next(database)
    return claim.job_id if claim else None


def add_job(database: ProjectDatabase, job_id: str) -> str:
    """The id of a new job for a model of its own making."""
    with database.write() as session:
        if session.scalar(select(Model)) is None:
            session.add(Model(id="0" * 64, name="m", filename="m.onnx", size_bytes=1))
            session.flush()
        session.add(
            Job(id=job_id, model_id="0" * 64, target="host", target_fingerprint=FINGERPRINT, target_spec={}, trials=8)
        )
    return job_id
