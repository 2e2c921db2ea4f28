"""What is outdated, and deleting it.

A job that ended more than so many days ago is outdated, unless it has the newest bundle of its model on its target; so
are models and samples of that age that no job uses any more, and versions of cost models behind the newest three of a
target. Records never are: every later job starts from them. All of this is of one project.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from service.database.base import now
from service.database.tables import Artifact, CostModel, Job, Model, Samples
from service.errors import Conflict, NotFound
from service.jobs.commands import delete_job
from service.jobs.states import FINAL_STATES, JobState
from service.references import delete_unreferenced
from service.retention.rule import check_days
from service.services import ProjectServices

KEPT_VERSIONS = 3

_FileTable = type[Model] | type[Samples]


@dataclass(frozen=True, kw_only=True)
class OutdatedJob:
    id: str
    model_name: str
    target: str
    state: str
    finished_at: datetime
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class OutdatedFile:
    """A model or samples."""

    id: str
    name: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class OutdatedVersion:
    """One version of a target's cost model."""

    target_fingerprint: str
    version: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Outdated:
    """Everything that is older than ``days`` and not needed; sizes are of files, the database's own not counted."""

    days: int
    jobs: tuple[OutdatedJob, ...]
    models: tuple[OutdatedFile, ...]
    samples: tuple[OutdatedFile, ...]
    cost_models: tuple[OutdatedVersion, ...]

    @property
    def count(self) -> int:
        return len(self.jobs) + len(self.models) + len(self.samples) + len(self.cost_models)

    @property
    def size_bytes(self) -> int:
        kinds = (self.jobs, self.models, self.samples, self.cost_models)
        return sum(each.size_bytes for kind in kinds for each in kind)


def find_outdated(services: ProjectServices, days: int) -> Outdated:
    """Raises `Invalid` (``invalid_retention``)."""
    check_days(days)
    before = now() - timedelta(days=days)
    with services.database.read() as session:
        jobs = _jobs(session, before)
        gone = {job.id for job in jobs}
        return Outdated(
            days=days,
            jobs=jobs,
            models=_files(session, Model, Job.model_id, before, gone),
            samples=_files(session, Samples, Job.samples_id, before, gone),
            cost_models=_versions(session, before),
        )


def delete_outdated(services: ProjectServices, days: int) -> Outdated:
    """Delete it, one after another; what came into use meanwhile stays. Returns what was found."""
    found = find_outdated(services, days)
    for job in found.jobs:
        with contextlib.suppress(NotFound, Conflict):
            delete_job(services, job.id)
    for model in found.models:
        _delete_file(services, Model, Job.model_id, model.id)
    for samples in found.samples:
        _delete_file(services, Samples, Job.samples_id, samples.id)
    for version in found.cost_models:
        _delete_version(services, version)
    return found


def _jobs(session: Session, before: datetime) -> tuple[OutdatedJob, ...]:
    newest = (
        select(func.max(Job.id))
        .select_from(Job)
        .where(Job.state == JobState.SUCCEEDED.value)
        .group_by(Job.model_id, Job.target)
    )
    size = select(func.coalesce(func.sum(Artifact.size_bytes), 0)).where(Artifact.job_id == Job.id).scalar_subquery()
    query = (
        select(Job.id, Model.name, Job.target, Job.state, Job.finished_at, size)
        .join(Model, Model.id == Job.model_id)
        .where(Job.state.in_([state.value for state in FINAL_STATES]), Job.finished_at < before, Job.id.not_in(newest))
        .order_by(Job.id)
    )
    return tuple(
        OutdatedJob(id=key, model_name=name, target=target, state=state, finished_at=finished, size_bytes=size_bytes)
        for key, name, target, state, finished, size_bytes in session.execute(query)
        if finished is not None
    )


def _files(
    session: Session,
    table: _FileTable,
    used_by: InstrumentedAttribute[Any],
    before: datetime,
    gone: set[str],
) -> tuple[OutdatedFile, ...]:
    users: dict[str, set[str]] = {}
    for job_id, file_id in session.execute(select(Job.id, used_by).where(used_by.is_not(None))):
        users.setdefault(file_id, set()).add(job_id)
    rows = session.execute(
        select(table.id, table.filename, table.size_bytes).where(table.created_at < before).order_by(table.created_at)
    )
    return tuple(
        OutdatedFile(id=file_id, name=name, size_bytes=size_bytes)
        for file_id, name, size_bytes in rows
        if users.get(file_id, set()) <= gone
    )


def _versions(session: Session, before: datetime) -> tuple[OutdatedVersion, ...]:
    place = func.row_number().over(partition_by=CostModel.target_fingerprint, order_by=CostModel.version.desc())
    ranked = select(
        CostModel.target_fingerprint,
        CostModel.version,
        CostModel.size_bytes,
        CostModel.created_at,
        place.label("place"),
    ).subquery()
    query = (
        select(ranked.c.target_fingerprint, ranked.c.version, ranked.c.size_bytes)
        .where(ranked.c.place > KEPT_VERSIONS, ranked.c.created_at < before)
        .order_by(ranked.c.target_fingerprint, ranked.c.version)
    )
    return tuple(OutdatedVersion(**row) for row in session.execute(query).mappings())


def _delete_file(
    services: ProjectServices, table: _FileTable, used_by: InstrumentedAttribute[Any], file_id: str
) -> None:
    with services.database.write() as session:
        row = session.scalar(select(table).where(table.id == file_id))
        if row is None or session.scalar(select(Job.id).where(used_by == file_id).limit(1)) is not None:
            return
        session.delete(row)
    delete_unreferenced(services.database, services.blobs, [file_id])


def _delete_version(services: ProjectServices, outdated: OutdatedVersion) -> None:
    with services.database.write() as session:
        of_target = CostModel.target_fingerprint == outdated.target_fingerprint
        row = session.scalar(select(CostModel).where(of_target, CostModel.version == outdated.version))
        if row is None:
            return
        blobs = {row.model_sha256, row.samples_sha256}
        session.delete(row)
    delete_unreferenced(services.database, services.blobs, blobs)
