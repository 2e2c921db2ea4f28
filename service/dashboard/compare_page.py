"""Two to four jobs side by side."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from service.dashboard import convergence
from service.dashboard.comparing import LETTERS, Compared, curves, task_rows, which_one
from service.dashboard.pages import PageRoute, render, services_of
from service.errors import Invalid
from service.queries.artifacts import get_manifest, list_artifacts
from service.queries.jobs import get_job
from service.queries.trials import list_tasks
from service.services import ProjectServices

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/compare")
def show_comparison(request: Request, job: Annotated[list[str], Query(max_length=100)] = []) -> Response:  # noqa: B006
    chosen = list(dict.fromkeys(job))
    if not 2 <= len(chosen) <= len(LETTERS):
        raise Invalid(
            f"{len(chosen)} job{' is' if len(chosen) == 1 else 's are'} chosen; a comparison is of two to four.",
            code="invalid_request",
            hint="Choose them in the list of jobs, then press Compare chosen.",
        )
    compared = [
        _compared(services_of(request), letter, job_id) for letter, job_id in zip(LETTERS, chosen, strict=False)
    ]
    context = {
        "compared": compared,
        "answer": which_one(compared),
        "rows": task_rows(compared),
        "curves": curves(compared),
    }
    return render("compare.html", context, here="/")


def _compared(services: ProjectServices, letter: str, job_id: str) -> Compared:
    job = get_job(services.database, job_id)
    artifacts = list_artifacts(services.database, job_id)
    bundle = next((artifact for artifact in artifacts if artifact.kind == "bundle"), None)
    manifest = get_manifest(services.database, services.blobs, job_id) if bundle else None
    memory = (manifest or {}).get("memory") or {}
    return Compared(
        letter=letter,
        job=job,
        tasks=list_tasks(services.database, job_id),
        steps=convergence.improvements(services.database, job_id),
        peak_bytes=memory.get("measured_peak_bytes") or memory.get("planned_peak_bytes"),
        bundle_bytes=bundle.size_bytes if bundle else None,
    )
