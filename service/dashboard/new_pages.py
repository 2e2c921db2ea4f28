"""Starting a job: upload a model or take one that is here, check it, choose target and budget."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from service.dashboard.expectations import MemoryRange, budget_note, memory_range
from service.dashboard.pages import PageRoute, by_count, render, services_of
from service.dashboard.start_form import StartForm, shape_fields
from service.disk_guard import require_space
from service.errors import Invalid, ServiceError, TooLarge, status_of
from service.jobs.commands import create_jobs
from service.preflight import check
from service.queries.jobs import EarlierLimits, earlier_limits
from service.queries.models import get_model, list_models
from service.queries.targets import all_targets, get_target
from service.schemas.jobs import Measure
from service.schemas.models import CheckReport
from service.services import ProjectServices
from service.uploads import upload_model
from tuner.errors import TesseraError

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_KNOWN_MODELS = 8
_CHUNK_BYTES = 1024**2
# A multipart form is a little larger than the file inside.
_FORM_OVERHEAD_BYTES = 64 * 1024


@router.get("/new")
def show_new(request: Request, model: Annotated[str | None, Query(max_length=200)] = None) -> Response:
    services = services_of(request)
    if model:
        return _start_page(services, model, StartForm.read(request.query_params))
    return _upload_page(services)


@router.post("/new")
async def upload_without_scripts(request: Request) -> Response:
    """The plain form: scripts send the file to the REST interface instead, with a progress bar."""
    services = services_of(request)
    try:
        _refuse_too_large(request, services.settings.max_upload_bytes)
        require_space(services.settings, request.headers.get("content-length"))
        async with request.form(max_files=1, max_fields=4) as form:
            file = form.get("file")
            if not isinstance(file, UploadFile) or not file.filename:
                raise Invalid("No file was chosen.", code="no_file", hint="Choose an .onnx file, then upload it.")
            uploaded = await upload_model(services, _chunks(file), filename=file.filename)
    except MultiPartException as error:
        problem: TesseraError = Invalid(f"The form could not be read: {error.message}")
        return await run_in_threadpool(_upload_page, services, problem)
    except ServiceError as error:
        return await run_in_threadpool(_upload_page, services, error)
    return RedirectResponse(f"/new?model={uploaded.resource.id}", status_code=303)


@router.post("/new/{model_id}")
async def check_or_start(request: Request, model_id: str) -> Response:
    """Both buttons of the start page: "Check model" shows the page again with the report, "Start tuning" goes on."""
    services = services_of(request)
    async with request.form(max_files=0, max_fields=200) as fields:
        action = fields.get("action")
        form = StartForm.read(fields)
    if action != "start":
        return await run_in_threadpool(_checked_page, services, model_id, form)
    try:
        job_ids = await run_in_threadpool(_start, services, model_id, form)
    except TesseraError as error:
        if error.code == "model_not_found":
            raise
        return await run_in_threadpool(_start_page, services, model_id, form, error=error)
    return RedirectResponse(f"/jobs/{job_ids[0]}" if len(job_ids) == 1 else "/", status_code=303)


def _start(services: ProjectServices, model_id: str, form: StartForm) -> list[str]:
    """Create a job for each target, or none at all where one of them is wrong; for a target that nothing here can
    measure, one without measuring, as the form says."""
    targets = [get_target(services.database, name, services) for name in form.targets]
    requests = [
        form.request(model_id, target=target.name, measure=Measure.DEVICE if target.measurable else Measure.NONE)
        for target in targets
    ]
    return create_jobs(services, requests)


def _checked_page(services: ProjectServices, model_id: str, form: StartForm) -> Response:
    try:
        report = check(services, model_id, target=form.target, input_shapes=form.input_shapes())
    except TesseraError as refusal:
        if refusal.code == "model_not_found":
            raise
        return _start_page(services, model_id, form, refusal=refusal)
    return _start_page(services, model_id, form, report=report)


def _start_page(
    services: ProjectServices,
    model_id: str,
    form: StartForm,
    *,
    error: TesseraError | None = None,
    refusal: TesseraError | None = None,
    report: CheckReport | None = None,
) -> Response:
    model = get_model(services.database, model_id)
    targets = all_targets(services.database, services)
    facts = report.model_dump() if report else None
    memory = memory_range(facts, _earlier_limits(services, model_id, form) if report else EarlierLimits())
    measured = any(target.measurable for target in targets if target.name == form.target)
    seconds_per_trial = (facts or {}).get("seconds_per_100_trials", 0.0) / 100 if measured else 0.0
    counted = (facts or {}).get("operators") or (refusal.details.get("operators") if refusal else None)
    context = {
        "model": model,
        "targets": targets,
        "values": form,
        "memory": memory if isinstance(memory, MemoryRange) else None,
        "memory_unknown": "" if isinstance(memory, MemoryRange) else memory,
        "seconds_per_trial": seconds_per_trial,
        "budget_note": budget_note(form, seconds_per_trial),
        "error": error,
        "refusal": refusal,
        "report": facts,
        "checked": report is not None or refusal is not None,
        "operators": by_count(counted),
        "shapes": shape_fields(model, form),
    }
    return render("start.html", context, status=status_of(error) if error else 200, here="/new")


def _earlier_limits(services: ProjectServices, model_id: str, form: StartForm) -> EarlierLimits:
    return earlier_limits(services.database, model_id=model_id, target=form.target, input_shapes=form.input_shapes())


def _upload_page(services: ProjectServices, error: TesseraError | None = None) -> Response:
    page = list_models(services.database, limit=_KNOWN_MODELS)
    context = {
        "models": page.items,
        "more": page.next_cursor is not None,
        "max_upload_bytes": services.settings.max_upload_bytes,
        "error": error,
    }
    return render("new.html", context, status=status_of(error) if error else 200, here="/new")


def _refuse_too_large(request: Request, limit_bytes: int) -> None:
    """Before the form is read: its parser would write the whole body to a temporary file first."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal() or int(length) > limit_bytes + _FORM_OVERHEAD_BYTES:
        raise TooLarge(f"The upload is larger than {limit_bytes} bytes.", details={"max_bytes": limit_bytes})


async def _chunks(file: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await file.read(_CHUNK_BYTES):
        yield chunk
