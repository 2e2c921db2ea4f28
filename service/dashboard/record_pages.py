"""The records of a target: what was measured, taken out and brought in."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from service import records_exchange
from service.dashboard.pages import PageRoute, render, services_of
from service.disk_guard import require_space
from service.errors import Invalid, ServiceError, TooLarge, status_of
from service.queries.records import Which, count_records, list_records
from service.queries.targets import all_targets, get_target
from service.schemas.cost_models import RecordsImported
from tuner.errors import TesseraError

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/records")
def show_records(
    request: Request,
    target: Annotated[str, Query(max_length=100)] = "host",
    q: Annotated[str, Query(max_length=200)] = "",
    which: Which = Which.FASTEST,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    return _page(request, target=target, q=q, which=which, cursor=cursor)


@router.post("/records")
async def import_file(request: Request) -> Response:
    """The page again, with what was stored, or why nothing was."""
    settings = services_of(request).settings
    limit_bytes = settings.max_upload_bytes
    require_space(settings, request.headers.get("content-length"))
    imported: RecordsImported | None = None
    problem: TesseraError | None = None
    async with request.form(max_files=1, max_fields=4) as form:
        target = str(form.get("target") or "host")
        file = form.get("file")
        try:
            if not isinstance(file, UploadFile) or not file.filename:
                raise Invalid(
                    "No file was chosen.", code="no_file", hint="Choose an export or a bundle's records.json."
                )
            body = await file.read(limit_bytes + 1)
            if len(body) > limit_bytes:
                raise TooLarge(f"The file is larger than {limit_bytes} bytes.", code="too_large")
            imported = await run_in_threadpool(_import, request, body, target)
        except ServiceError as error:
            problem = error
    return await run_in_threadpool(_page, request, target=target, imported=imported, error=problem)


def _import(request: Request, body: bytes, target: str) -> RecordsImported:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Invalid("The records are not UTF-8 text.", code="records_invalid") from None
    return records_exchange.import_records(services_of(request).database, text, target=target)


def _page(
    request: Request,
    *,
    target: str,
    q: str = "",
    which: Which = Which.FASTEST,
    cursor: str | None = None,
    imported: RecordsImported | None = None,
    error: TesseraError | None = None,
) -> Response:
    services = services_of(request)
    fingerprint = get_target(services.database, target).fingerprint
    page = list_records(
        services.database, target_fingerprint=fingerprint, search=q.strip() or None, which=which, cursor=cursor
    )
    records, failures, workloads = count_records(services.database, target_fingerprint=fingerprint)
    chosen = {"target": target, "q": q, "which": which.value}
    context = {
        "records": page.items,
        "next_cursor": page.next_cursor,
        "cursor": cursor,
        "chosen": chosen,
        "filters": urlencode(chosen),
        "kinds": [each.value for each in Which],
        "targets": [each.name for each in all_targets(services.database)],
        "counts": {"records": records, "failures": failures, "workloads": workloads},
        "imported": imported,
        "error": error,
    }
    return render("records.html", context, status=status_of(error) if error else 200, here="/records")
