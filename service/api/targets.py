"""/targets and /devices."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service import targets as commands
from service.api.dependencies import ServicesDep, problem_responses
from service.api.schemas import DeviceSchema, Page, TargetCreate, TargetSchema
from service.queries import targets as queries

router = APIRouter(tags=["targets"])


@router.get("/targets", summary="List targets")
def list_targets(services: ServicesDep) -> Page[TargetSchema]:
    return Page(items=queries.all_targets(services.database, services.fleet))


@router.get("/targets/{name}", summary="Read one target", responses=problem_responses(404))
def get_target(name: str, services: ServicesDep) -> TargetSchema:
    return queries.get_target(services.database, name, services.fleet)


@router.post("/targets", status_code=201, summary="Add a target of one's own", responses=problem_responses(409, 422))
def create_target(request: TargetCreate, response: Response, services: ServicesDep) -> TargetSchema:
    target = commands.create_target(services, request)
    response.headers["Location"] = f"/api/v1/targets/{target.name}"
    return target


@router.get("/devices", summary="List the devices that can measure")
def list_devices(services: ServicesDep) -> Page[DeviceSchema]:
    return Page(items=queries.list_devices(services.database, services.fleet))
