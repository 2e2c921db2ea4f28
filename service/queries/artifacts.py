"""Reading artifacts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from service.blobs import BlobStore
from service.database import ProjectDatabase
from service.database.tables import Artifact
from service.errors import NotFound
from service.queries.jobs import find_job
from service.schemas.artifacts import ArtifactSchema


def list_artifacts(database: ProjectDatabase, job_id: str) -> list[ArtifactSchema]:
    """What a job produced, the bundle first."""
    with database.read() as session:
        find_job(session, job_id)
        rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.id)).all()
    return [_schema(row) for row in sorted(rows, key=lambda row: row.kind != "bundle")]


def bundles_of_jobs(database: ProjectDatabase, job_ids: Sequence[str]) -> dict[str, ArtifactSchema]:
    """The bundle of each of these jobs that has one."""
    query = select(Artifact).where(Artifact.job_id.in_(job_ids), Artifact.kind == "bundle")
    with database.read() as session:
        return {row.job_id: _schema(row) for row in session.scalars(query)}


def get_artifact(database: ProjectDatabase, artifact_id: str) -> ArtifactSchema:
    """One artifact; raises `NotFound` (``artifact_not_found``)."""
    with database.read() as session:
        row = session.get(Artifact, artifact_id)
    if row is None:
        raise NotFound(
            f"There is no artifact {artifact_id!r}.",
            code="artifact_not_found",
            hint="List a job's artifacts with GET /api/v1/jobs/{id}/artifacts.",
        )
    return _schema(row)


def get_manifest(database: ProjectDatabase, blobs: BlobStore, job_id: str) -> dict[str, Any] | None:
    """The manifest of a finished job's bundle, or None."""
    return _get_json(database, blobs, job_id, kind="manifest")


def get_schedule(database: ProjectDatabase, blobs: BlobStore, job_id: str, task_key: str) -> dict[str, Any] | None:
    """What a finished job's ``schedules`` artifact has of a task (`tuner.shown_schedules`), or None."""
    schedules = _get_json(database, blobs, job_id, kind="schedules")
    return next((task for task in (schedules or {}).get("tasks", []) if task.get("key") == task_key), None)


def _get_json(database: ProjectDatabase, blobs: BlobStore, job_id: str, *, kind: str) -> dict[str, Any] | None:
    for artifact in list_artifacts(database, job_id):
        if artifact.kind == kind:
            content = json.loads(blobs.path(artifact.sha256).read_text())
            return content if isinstance(content, dict) else None
    return None


def _schema(row: Artifact) -> ArtifactSchema:
    return ArtifactSchema(
        id=row.id,
        job_id=row.job_id,
        kind=row.kind,
        filename=row.filename,
        content_type=row.content_type,
        size_bytes=row.size_bytes,
        sha256=row.sha256,
        created_at=row.created_at,
        download_url=f"/api/v1/artifacts/{row.id}/download",
    )
