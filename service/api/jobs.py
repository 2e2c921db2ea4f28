"""/jobs, and what lies below a job."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service.api.dependencies import DEFAULT_PAGE, Cursor, Limit, ServicesDep, problem_responses
from service.api.schemas import (
    ArtifactSchema,
    EventSchema,
    Front,
    JobCreate,
    JobSchema,
    LogLine,
    Page,
    TaskSchema,
    TrialSchema,
)
from service.database import Database
from service.jobs import commands
from service.jobs.states import FINAL_STATES, JobState
from service.queries import artifacts, jobs, trials

router = APIRouter(tags=["jobs"])

# How often a stream looks for new events while there are none. A look is one indexed read of SQLite (≈ 0.2 ms).
_POLL_S = 0.25
# How long browsers wait before they come back to a stream that broke; left to themselves it is seconds.
_RETRY_MS = 500


@router.post(
    "/jobs",
    status_code=201,
    summary="Start tuning",
    description="The same `Idempotency-Key` with the same body answers with the same job.",
    responses=problem_responses(404, 422),
)
def create_job(
    request: JobCreate,
    response: Response,
    services: ServicesDep,
    idempotency_key: Annotated[str | None, Header()] = None,
) -> JobSchema:
    created = commands.create_job(services, request, idempotency_key=idempotency_key)
    response.headers["Location"] = f"/api/v1/jobs/{created.job.id}"
    if created.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return created.job


@router.get("/jobs", summary="List jobs, newest first", responses=problem_responses(422))
def list_jobs(
    services: ServicesDep,
    state: Annotated[list[JobState], Query(description="only jobs in these states")] = [],  # noqa: B006
    model_id: str | None = None,
    target: str | None = None,
    search: Annotated[
        str | None, Query(max_length=200, description="a part of the model's name, or of an id's beginning")
    ] = None,
    cursor: Cursor = None,
    limit: Limit = DEFAULT_PAGE,
) -> Page[JobSchema]:
    return jobs.list_jobs(
        services.database,
        states=state,
        model_id=model_id,
        target=target,
        search=search,
        cursor=cursor,
        limit=limit,
    )


@router.get("/jobs/{job_id}", summary="Read one job", responses=problem_responses(404))
def get_job(job_id: str, services: ServicesDep) -> JobSchema:
    return jobs.get_job(services.database, job_id)


@router.post("/jobs/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=problem_responses(404, 409))
def cancel_job(job_id: str, services: ServicesDep) -> JobSchema:
    return commands.cancel_job(services, job_id)


@router.delete("/jobs/{job_id}", status_code=204, summary="Delete an ended job", responses=problem_responses(404, 409))
def delete_job(job_id: str, services: ServicesDep) -> None:
    commands.delete_job(services, job_id)


@router.get("/jobs/{job_id}/tasks", summary="The job's tasks", responses=problem_responses(404))
def list_tasks(job_id: str, services: ServicesDep) -> Page[TaskSchema]:
    return Page(items=trials.list_tasks(services.database, job_id))


@router.get("/jobs/{job_id}/trials", summary="The job's trials, oldest first", responses=problem_responses(404, 422))
def list_trials(
    job_id: str,
    services: ServicesDep,
    task: str | None = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="trials a page")] = DEFAULT_PAGE,
) -> Page[TrialSchema]:
    return trials.list_trials(services.database, job_id, task=task, cursor=cursor, limit=limit)


@router.get(
    "/jobs/{job_id}/log",
    summary="The job's log, oldest first",
    description="With `format=text`: everything that the job's process wrote, as plain text.",
    responses={200: {"content": {"text/plain": {}}}, **problem_responses(404, 422)},
    response_model=Page[LogLine],
)
def get_log(
    job_id: str,
    services: ServicesDep,
    format: Annotated[str, Query(pattern="^(json|text)$")] = "json",
    cursor: Cursor = None,
    limit: Limit = DEFAULT_PAGE,
) -> Page[LogLine] | Response:
    if format == "json":
        return jobs.list_log(services.database, job_id, cursor=cursor, limit=limit)
    jobs.get_job(services.database, job_id)
    path = services.settings.job_log(job_id)
    if not path.is_file():
        return PlainTextResponse("")
    return FileResponse(path, media_type="text/plain; charset=utf-8")


@router.get("/jobs/{job_id}/artifacts", summary="What the job produced", responses=problem_responses(404))
def list_artifacts(job_id: str, services: ServicesDep) -> Page[ArtifactSchema]:
    return Page(items=artifacts.list_artifacts(services.database, job_id))


@router.get("/jobs/{job_id}/front", summary="Memory against latency", responses=problem_responses(404))
def get_front(job_id: str, services: ServicesDep) -> Front:
    manifest = artifacts.get_manifest(services.database, services.blobs, job_id)
    return jobs.get_front(services.database, job_id, manifest)


async def _existing_job(job_id: str, services: ServicesDep) -> str:
    """Answers 404 before a stream begins."""
    await run_sync(jobs.get_job, services.database, job_id)
    return job_id


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventSourceResponse,
    summary="The job's events as they happen (SSE)",
    description="Events: state, stage, log, preflight, tasks, trial, progress, baseline, roofline, untuned, result. "
    "After a final state and its last event comes `end`, and the stream closes. `Last-Event-ID` (or `?after=`) resumes "
    "behind that event.",
    responses=problem_responses(404),
)
async def stream_events(
    services: ServicesDep,
    job_id: Annotated[str, Depends(_existing_job)],
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[int, Query(ge=0)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    if last_event_id is not None and last_event_id.isdecimal():
        after = min(int(last_event_id), 2**62)
    yield ServerSentEvent(retry=_RETRY_MS)
    while True:
        # The state is read before the events: events of a final state are then all there.
        state = await run_sync(jobs.get_state, services.database, job_id)
        while events := await run_sync(_events_after, services.database, job_id, after):
            for event in events:
                after = event.id
                yield ServerSentEvent(event=event.kind, id=str(event.id), data=event.data)
        if state is None or state in FINAL_STATES:
            yield ServerSentEvent(event="end", data={"state": state.value if state else "deleted"})
            return
        if services.stopping.is_set():
            return
        await anyio.sleep(_POLL_S)


def _events_after(database: Database, job_id: str, after: int) -> list[EventSchema]:
    return jobs.list_events(database, job_id, after=after)
