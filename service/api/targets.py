"""/targets and /devices."""

from __future__ import annotations

from fastapi import APIRouter, Response

from service import targets as commands
from service.api.codes import problem_responses
from service.api.dependencies import ServicesDep, TargetName
from service.queries import targets as queries
from service.schemas.pages import Page
from service.schemas.targets import DeviceSchema, TargetCreate, TargetSchema

router = APIRouter(tags=["targets"])


@router.get(
    "/targets",
    summary="List targets",
    description="What code can be generated for: `host`, the machine of the server, those that Tessera knows, and "
    "those that were added.",
    response_description="All targets; the list is a single page",
)
def list_targets(services: ServicesDep) -> Page[TargetSchema]:
    return Page(items=queries.all_targets(services.database, services))


@router.get(
    "/targets/{name}",
    summary="Read one target",
    description="What code is generated for, and what can be done for it here.",
    response_description="The target",
    responses=problem_responses("unknown_target"),
)
def get_target(name: TargetName, services: ServicesDep) -> TargetSchema:
    return queries.get_target(services.database, name, services)


@router.post(
    "/targets",
    status_code=201,
    summary="Add a target of one's own",
    description="A TVM target object, the link triple and the number of threads. It cannot be changed afterwards: "
    "records belong to a target as it was measured.",
    response_description="The target; `Location` is its address",
    responses=problem_responses("target_exists", "invalid_target"),
)
def create_target(request: TargetCreate, response: Response, services: ServicesDep) -> TargetSchema:
    target = commands.create_target(services, request)
    response.headers["Location"] = f"/api/v1/targets/{target.name}"
    return target


@router.get(
    "/devices",
    summary="List the devices that can measure",
    description="This machine, and the boards of the fleet with their state.",
    response_description="All devices; the list is a single page",
)
def list_devices(services: ServicesDep) -> Page[DeviceSchema]:
    return Page(items=queries.list_devices(services.database, services.fleet))
