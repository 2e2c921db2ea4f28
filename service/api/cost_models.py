"""/cost-models."""

from __future__ import annotations

from fastapi import APIRouter

from service.api.dependencies import ServicesDep, problem_responses
from service.api.schemas import CostModelDetail, CostModelSchema, Page
from service.cost_models import restore_version
from service.queries import cost_models as queries

router = APIRouter(tags=["cost models"])


@router.get("/cost-models", summary="The newest cost model of every target")
def list_cost_models(services: ServicesDep) -> Page[CostModelSchema]:
    return Page(items=queries.list_cost_models(services.database))


@router.get("/cost-models/{target}", summary="A target's cost model, all versions", responses=problem_responses(404))
def get_cost_model(target: str, services: ServicesDep) -> CostModelDetail:
    """``target`` is a target's name or fingerprint. ``held_out`` belongs to the newest version."""
    return queries.get_cost_model(services.database, target)


@router.post(
    "/cost-models/{target}/versions/{version}/restore",
    summary="Go back to an earlier version",
    responses=problem_responses(404),
)
def restore_cost_model(target: str, version: int, services: ServicesDep) -> CostModelDetail:
    """The next jobs start with that version again, as the newest one; they train further versions from all records."""
    restore_version(services, target, version)
    return queries.get_cost_model(services.database, target)
