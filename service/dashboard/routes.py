"""The dashboard's router: the lists here, a cost model, a job and a new job in modules of their own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.dashboard import cost_model_pages, job_pages, new_pages, verdict
from service.dashboard.pages import PageRoute, render, services_of
from service.jobs.states import JobState
from service.queries.cost_models import list_cost_models
from service.queries.jobs import count_jobs, list_jobs
from service.queries.models import list_models
from service.queries.targets import all_targets, list_devices

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Cursor = Annotated[str | None, Query(max_length=500)]


@router.get("/")
def show_jobs(request: Request, cursor: Cursor = None) -> Response:
    database = services_of(request).database
    page = list_jobs(database, cursor=cursor)
    rows = [{"job": job, "speed": verdict.speed(job), "line": verdict.progress_line(job)} for job in page.items]
    context = {
        "jobs": rows,
        "summary": _summary(count_jobs(database)),
        "next_cursor": page.next_cursor,
        "cursor": cursor,
    }
    return render("jobs.html", context, here="/")


@router.get("/models")
def show_models(request: Request, cursor: Cursor = None) -> Response:
    page = list_models(services_of(request).database, cursor=cursor)
    context = {"models": page.items, "next_cursor": page.next_cursor, "cursor": cursor}
    return render("models.html", context, here="/models")


@router.get("/targets")
def show_targets(request: Request) -> Response:
    database = services_of(request).database
    devices = list_devices(database, services_of(request).fleet)
    context = {"targets": all_targets(database, services_of(request).fleet), "devices": devices}
    return render("targets.html", context, here="/targets")


@router.get("/cost-models")
def show_cost_models(request: Request) -> Response:
    context = {"cost_models": list_cost_models(services_of(request).database)}
    return render("cost_models.html", context, here="/cost-models")


def _summary(counted: dict[JobState, int]) -> str:
    """What is going on in one line: "1 running, 2 waiting, 14 ended"."""
    running = counted[JobState.RUNNING] + counted[JobState.CANCELLING]
    waiting = counted[JobState.QUEUED]
    ended = sum(counted.values()) - running - waiting
    parts = [f"{running} running" if running else "Nothing running"]
    if waiting:
        parts.append(f"{waiting} waiting")
    parts.append(f"{ended} ended")
    return ", ".join(parts)


router.include_router(cost_model_pages.router)
router.include_router(job_pages.router)
router.include_router(new_pages.router)
