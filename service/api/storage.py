"""``/api/v1/storage``: what is kept, for how long, and deleting what is outdated."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.codes import problem_responses
from service.api.dependencies import ServicesDep
from service.queries.storage import storage_use
from service.retention.cleaning import Outdated, delete_outdated, find_outdated
from service.retention.rule import get_retention_days, set_retention_days
from service.schemas.storage import CleanUp, CleanUpReport, KeptSchema, OutdatedSchema, Retention, StorageSchema
from service.services import ProjectServices

router = APIRouter(tags=["storage"])


@router.get(
    "/storage",
    summary="Read what is kept",
    description="How many of each kind and their bytes in the project, what the database takes and what is free on the "
    "server's disk, and for how long things are kept.",
    response_description="What is kept, and the rule",
)
def get_storage(services: ServicesDep) -> StorageSchema:
    return _storage(services)


@router.put(
    "/storage/retention",
    summary="Set how long things are kept",
    description="Jobs that ended more than so many days ago are deleted, every hour, in all projects; null keeps "
    "everything.",
    response_description="What is kept, and the new rule",
    responses=problem_responses("invalid_retention"),
)
def set_retention(request: Retention, services: ServicesDep) -> StorageSchema:
    set_retention_days(services.database, request.days)
    return _storage(services)


@router.post(
    "/storage/clean-up",
    summary="Delete what is outdated",
    description="Once, now, in the project. With `dry_run` nothing is deleted: the answer is what would be.",
    response_description="What is outdated, and whether it was deleted",
    responses=problem_responses("invalid_retention"),
)
def clean_up_storage(request: CleanUp, services: ServicesDep) -> CleanUpReport:
    act = find_outdated if request.dry_run else delete_outdated
    return _report(act(services, request.days), deleted=not request.dry_run)


def _storage(services: ProjectServices) -> StorageSchema:
    use = storage_use(services)
    return StorageSchema(
        kept=[KeptSchema(name=each.name, count=each.count, size_bytes=each.size_bytes) for each in use.kept],
        database_bytes=use.database_bytes,
        free_bytes=use.free_bytes,
        retention_days=get_retention_days(services.database),
    )


def _report(outdated: Outdated, *, deleted: bool) -> CleanUpReport:
    return CleanUpReport(
        days=outdated.days,
        deleted=deleted,
        size_bytes=outdated.size_bytes,
        jobs=[OutdatedSchema(id=job.id, name=job.model_name, size_bytes=job.size_bytes) for job in outdated.jobs],
        models=[OutdatedSchema(id=each.id, name=each.name, size_bytes=each.size_bytes) for each in outdated.models],
        samples=[OutdatedSchema(id=each.id, name=each.name, size_bytes=each.size_bytes) for each in outdated.samples],
        cost_models=[
            OutdatedSchema(id=each.target_fingerprint, name=f"version {each.version}", size_bytes=each.size_bytes)
            for each in outdated.cost_models
        ],
    )
