"""The dashboard's router: the lists here; every other page, what charts are drawn from and Netron's files in modules of
their own."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from service.dashboard import (
    access_pages,
    chart_data,
    compare_page,
    cost_model_pages,
    job_pages,
    model_pages,
    netron,
    new_pages,
    record_pages,
    reference,
    settings_pages,
    task_page,
    verdict,
)
from service.dashboard.pages import PageRoute, render, services_of
from service.dashboard.sparkline import sparkline
from service.jobs.states import JobState
from service.queries.cost_models import list_cost_models
from service.queries.jobs import count_jobs, list_jobs, targets_of_jobs
from service.queries.targets import all_targets, list_devices

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Cursor = Annotated[str | None, Query(max_length=500)]


@router.get("/")
def show_jobs(
    request: Request,
    cursor: Cursor = None,
    q: Annotated[str, Query(max_length=200)] = "",
    state: Annotated[JobState | Literal[""], Query()] = "",
    target: Annotated[str, Query(max_length=100)] = "",
) -> Response:
    database = services_of(request).database
    page = list_jobs(
        database, states=[state] if state else [], target=target or None, search=q.strip() or None, cursor=cursor
    )
    chosen = {"q": q, "state": str(state), "target": target}
    context = {
        "jobs": [
            {
                "job": job,
                "speed": verdict.speed(job),
                "line": verdict.progress_line(job),
                "sparkline": sparkline(job.convergence, job.progress.trials_done),
            }
            for job in page.items
        ],
        "summary": _summary(count_jobs(database)),
        "next_cursor": page.next_cursor,
        "cursor": cursor,
        "chosen": chosen,
        "filters": urlencode({name: value for name, value in chosen.items() if value}),
        "states": [each.value for each in JobState],
        "targets": targets_of_jobs(database),
    }
    return render("jobs.html", context, here="/")


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


router.include_router(access_pages.router)
router.include_router(chart_data.router)
router.include_router(compare_page.router)
router.include_router(cost_model_pages.router)
router.include_router(job_pages.router)
router.include_router(model_pages.router)
router.include_router(netron.router)
router.include_router(new_pages.router)
router.include_router(record_pages.router)
router.include_router(reference.router)
router.include_router(settings_pages.router)
router.include_router(task_page.router)
