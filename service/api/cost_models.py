"""/cost-models."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from service.api.codes import problem_responses
from service.api.dependencies import ServicesDep, TargetKey
from service.cost_models import restore_version
from service.queries import cost_models as queries
from service.schemas.cost_models import CostModelDetail, CostModelSchema
from service.schemas.pages import Page

router = APIRouter(tags=["cost models"])


@router.get(
    "/cost-models",
    summary="List cost models",
    description="The newest version of every target's cost model, with its rank quality on held-out workloads.",
    response_description="One version a target; the list is a single page",
)
def list_cost_models(services: ServicesDep) -> Page[CostModelSchema]:
    return Page(items=queries.list_cost_models(services.database))


@router.get(
    "/cost-models/{target}",
    summary="Read a target's cost model",
    description="All versions, newest first. `held_out` belongs to the newest one.",
    response_description="The newest version, its held-out points, and all versions",
    responses=problem_responses("cost_model_not_found"),
)
def get_cost_model(target: TargetKey, services: ServicesDep) -> CostModelDetail:
    return queries.get_cost_model(services.database, target)


@router.post(
    "/cost-models/{target}/versions/{version}/restore",
    summary="Go back to an earlier version",
    description="The next jobs start with that version again, as the newest one under a number of its own; they train "
    "further versions from all records. Nothing is deleted.",
    response_description="The cost model, with the restored version as the newest",
    responses=problem_responses("cost_model_not_found"),
)
def restore_cost_model(
    target: TargetKey,
    version: Annotated[int, Path(ge=1, le=2**31 - 1, description="the number of the version to go back to")],
    services: ServicesDep,
) -> CostModelDetail:
    restore_version(services, target, version)
    return queries.get_cost_model(services.database, target)
