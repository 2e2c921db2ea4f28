"""The page of one job, its trials, and cancelling it."""

from __future__ import annotations

import shlex
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from service.dashboard import convergence, verdict
from service.dashboard.memory import shown_memory
from service.dashboard.pages import PageRoute, render, services_of
from service.errors import Conflict
from service.jobs.commands import cancel_job
from service.jobs.states import FINAL_STATES
from service.queries.artifacts import get_manifest, list_artifacts
from service.queries.jobs import get_front, get_job
from service.queries.trials import list_tasks, list_trials
from service.schemas.artifacts import ArtifactSchema

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_TRIALS_A_PAGE = 200


@router.get("/jobs/{job_id}")
def show_job(request: Request, job_id: str) -> Response:
    services = services_of(request)
    database = services.database
    # Read before anything else: events that come while the page is made are then sent again, never lost.
    last_event = convergence.last_event_id(database, job_id)
    job = get_job(database, job_id)
    tasks = list_tasks(database, job_id)
    by_share = sorted(tasks, key=lambda task: -(task.share or 0.0))
    artifacts = list_artifacts(database, job_id)
    bundle = next((artifact for artifact in artifacts if artifact.kind == "bundle"), None)
    manifest = get_manifest(database, services.blobs, job_id) if bundle else None
    context = {
        "job": job,
        "last_event": last_event,
        "live": job.state not in FINAL_STATES,
        "faster": verdict.how_much_faster(job),
        "right": verdict.is_it_right(job, manifest),
        "speed": verdict.speed(job),
        "limit": verdict.RELATIVE_LIMIT,
        "stages": verdict.stage_marks(job),
        "line": verdict.progress_line(job),
        "tasks": by_share,
        "task_names": {task.key: task.name for task in tasks},
        "failures": sum(task.failures for task in tasks),
        "steps": convergence.improvements(database, job_id),
        "drift": convergence.last_drift(database, job_id),
        "log": convergence.last_log_lines(database, job_id),
        "memory": shown_memory(manifest, get_front(database, job_id, manifest)),
        "artifacts": artifacts,
        "bundle": bundle,
        "commands": _commands(str(request.base_url), bundle) if bundle else [],
    }
    return render("job.html", context, here="/")


@router.get("/jobs/{job_id}/trials")
def show_trials(
    request: Request, job_id: str, task: str = "", cursor: Annotated[str | None, Query(max_length=500)] = None
) -> Response:
    database = services_of(request).database
    tasks = list_tasks(database, job_id)
    page = list_trials(database, job_id, task=task or None, cursor=cursor, limit=_TRIALS_A_PAGE)
    context = {
        "job": get_job(database, job_id),
        "tasks": tasks,
        "task_names": {each.key: each.name for each in tasks},
        "chosen": task,
        "trials": page.items,
        "next_cursor": page.next_cursor,
        "cursor": cursor,
    }
    return render("trials.html", context, here="/")


@router.post("/jobs/{job_id}/cancel")
def cancel(request: Request, job_id: str) -> Response:
    _cancel(request, job_id)
    return RedirectResponse(f"/jobs/{job_id}", status_code=303)


@router.post("/jobs/cancel")
def cancel_chosen(request: Request, job: Annotated[list[str], Form(max_length=1000)] = []) -> Response:  # noqa: B006
    for job_id in job:
        _cancel(request, job_id)
    return RedirectResponse("/", status_code=303)


def _cancel(request: Request, job_id: str) -> None:
    try:
        cancel_job(services_of(request), job_id)
    except Conflict as error:
        # The job ended while the person reached for the button: its page says how.
        if error.code != "job_finished":
            raise


def _commands(base_url: str, bundle: ArtifactSchema) -> list[str]:
    """What a person types to fetch, check and run the bundle elsewhere."""
    url = shlex.quote(f"{base_url.rstrip('/')}{bundle.download_url}")
    name = shlex.quote(bundle.filename)
    folder = shlex.quote(bundle.filename.removesuffix(".tar.gz"))
    checksum = shlex.quote(f"{bundle.sha256}  {bundle.filename}")
    return [
        f"curl -fL -o {name} {url}",
        f"echo {checksum} | sha256sum -c",
        f"mkdir {folder} && tar -xzf {name} -C {folder} && cd {folder}",
        "python -m pip install -r requirements.txt && python run.py --benchmark",
    ]
