"""What convergence charts are drawn from: trials by columns, an eighth of what they take as objects with their knobs.

A trial's knobs are asked for when the pointer is on it.
"""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from service.dashboard.pages import SECURITY_HEADERS, services_of
from service.queries.trials import get_trial, trial_columns

router = APIRouter(include_in_schema=False)
_TRIALS_A_PAGE = 20_000


@router.get("/jobs/{job_id}/chart")
def read_columns(
    request: Request,
    job_id: str,
    task: Annotated[str | None, Query(max_length=200)] = None,
    after: Annotated[int, Query(ge=0)] = 0,
) -> Response:
    """The trials behind number ``after``, oldest first: an array for each field, null where a trial has none. ``next``
    is the ``after`` of the next page, null on the last one."""
    columns = trial_columns(services_of(request).database, job_id, task=task, after=after, limit=_TRIALS_A_PAGE)
    numbers = columns["number"]
    following = numbers[-1] if len(numbers) == _TRIALS_A_PAGE else None
    return _answer({"columns": columns, "next": following})


@router.get("/jobs/{job_id}/chart/{number}")
def read_trial(request: Request, job_id: str, number: Annotated[int, Path(ge=1, le=2**62)]) -> Response:
    """The knobs of one trial."""
    return _answer({"knobs": get_trial(services_of(request).database, job_id, number).knobs})


def _answer(content: object) -> Response:
    return Response(json.dumps(content, separators=(",", ":")), headers=SECURITY_HEADERS, media_type="application/json")
