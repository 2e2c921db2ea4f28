"""What routes ask FastAPI for."""

from __future__ import annotations

from typing import Annotated, Any, cast

from fastapi import Depends, Query, Request

from service.paging import DEFAULT_LIMIT, MAX_LIMIT
from service.services import Services


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]
Cursor = Annotated[str | None, Query(description="next_cursor of the page before", max_length=500)]
Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="items a page")]
DEFAULT_PAGE = DEFAULT_LIMIT


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entry for the problems that a route answers with."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": "Problem (RFC 9457) with code and hint", "content": content} for status in statuses}
