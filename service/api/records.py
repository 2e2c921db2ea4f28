"""/records: export and import."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from service import records_exchange
from service.api.codes import problem_responses
from service.api.dependencies import ServicesDep
from service.disk_guard import require_space
from service.errors import Invalid, TooLarge
from service.schemas.cost_models import RecordsImported

router = APIRouter(tags=["records"])


@router.get(
    "/records",
    summary="Export a target's records",
    description="Every record of the target, oldest first, each workload before its first record.",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "One JSON object a line, streamed",
            "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
        },
        **problem_responses("unknown_target"),
    },
)
def export_records(
    services: ServicesDep, target: Annotated[str, Query(description="a target's name or fingerprint")] = "host"
) -> StreamingResponse:
    lines = records_exchange.export_records(services.database, target=target)
    return StreamingResponse(lines, media_type="application/x-ndjson")


@router.post(
    "/records",
    summary="Import records",
    description="NDJSON as `GET` gives it, or a bundle's `records.json`. All of them are stored or none; those that "
    "are here already are skipped.",
    response_description="How many were new",
    responses=problem_responses("unknown_target", "too_large", "records_invalid", "target_mismatch"),
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/x-ndjson": {"schema": {"type": "string"}}}}
    },
)
async def import_records(
    request: Request,
    services: ServicesDep,
    target: Annotated[str | None, Query(description="accept records of this target only")] = None,
) -> RecordsImported:
    limit_bytes = services.settings.max_upload_bytes
    require_space(services.settings, request.headers.get("content-length"))
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit_bytes:
            raise TooLarge(f"The upload is larger than {limit_bytes} bytes.", code="too_large")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise Invalid("The records are not UTF-8 text.", code="records_invalid") from None
    return await run_in_threadpool(records_exchange.import_records, services.database, text, target=target)
