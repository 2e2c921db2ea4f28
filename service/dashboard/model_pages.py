"""The models: their list, the page of one with its jobs and bundles, its graph, and deleting it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from service.dashboard import netron, verdict
from service.dashboard.pages import PageRoute, by_count, render, services_of
from service.errors import Conflict, status_of
from service.jobs.states import FINAL_STATES
from service.queries.artifacts import bundles_of_jobs
from service.queries.jobs import count_jobs, fastest_job, last_preflight, list_jobs
from service.queries.models import get_model, list_models
from service.uploads import delete_model
from tuner.errors import TesseraError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
Cursor = Annotated[str | None, Query(max_length=500)]


@router.get("/models")
def show_models(request: Request, cursor: Cursor = None) -> Response:
    page = list_models(services_of(request).database, cursor=cursor)
    context = {"models": page.items, "next_cursor": page.next_cursor, "cursor": cursor}
    return render("models.html", context, here="/models")


@router.get("/models/{model_id}")
def show_model(request: Request, model_id: str, cursor: Cursor = None) -> Response:
    return _page(request, model_id, cursor=cursor)


@router.get("/models/{model_id}/graph")
def show_graph(request: Request, model_id: str) -> Response:
    model = get_model(services_of(request).database, model_id)
    context = {"model": model, "netron": f"/netron/{netron.version()}", "netron_version": netron.version()}
    return render("graph.html", context, here="/models", policy=netron.POLICY)


@router.post("/models/{model_id}/delete")
def delete(request: Request, model_id: str) -> Response:
    """The list without the model, or the model's page again, with the reason why it stays."""
    try:
        delete_model(services_of(request), model_id)
    except Conflict as error:
        return _page(request, model_id, error=error)
    return RedirectResponse("/models", status_code=303)


def _page(request: Request, model_id: str, *, cursor: str | None = None, error: TesseraError | None = None) -> Response:
    database = services_of(request).database
    model = get_model(database, model_id)
    page = list_jobs(database, model_id=model.id, cursor=cursor)
    fastest = fastest_job(database, model_id=model.id)
    shown = [job.id for job in page.items]
    bundles = bundles_of_jobs(database, [*shown, fastest.id] if fastest else shown)
    preflight: dict[str, Any] = last_preflight(database, model_id=model.id) or {}
    counted = {state: jobs for state, jobs in count_jobs(database, model_id=model.id).items() if jobs}
    context = {
        "model": model,
        "jobs": [
            {"job": job, "speed": verdict.speed(job), "bundle": bundles.get(job.id), "line": verdict.progress_line(job)}
            for job in page.items
        ],
        "fastest": fastest,
        "fastest_bundle": bundles.get(fastest.id) if fastest else None,
        "faster": verdict.how_much_faster(fastest) if fastest else None,
        "preflight": preflight,
        "operators": by_count(preflight.get("operators")),
        "counted": [(state.value, jobs) for state, jobs in counted.items()],
        "going_on": any(state not in FINAL_STATES for state in counted),
        "next_cursor": page.next_cursor,
        "cursor": cursor,
        "error": error,
    }
    return render("model.html", context, status=status_of(error) if error else 200, here="/models")
