"""/jobs, and what lies below a job."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Annotated, Literal

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from service.api.codes import problem_responses
from service.api.dependencies import (
    DEFAULT_PAGE,
    AccessDep,
    Cursor,
    FeedDep,
    JobId,
    Limit,
    PrincipalDep,
    ServicesDep,
)
from service.api.event_feed import POLL_S, EventFeed, sse
from service.api.files import StoredFile, file_responses
from service.errors import QueueFull, StorageUnavailable, TooManyJobs
from service.jobs import commands
from service.jobs.states import FINAL_STATES, JobState
from service.queries import artifacts, jobs, trials
from service.schemas.artifacts import ArtifactSchema, Front
from service.schemas.events import LogLine
from service.schemas.jobs import JobCreate, JobSchema
from service.schemas.pages import Page
from service.schemas.tasks import TaskSchema, TrialSchema
from service.services import ProjectServices
from tuner.errors import TargetError

router = APIRouter(tags=["jobs"])

# Proxies close what is silent for long.
_PING_S = 15.0
_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
# How long browsers wait before they come back to a stream that broke; left to themselves it is seconds.
_RETRY_MS = 500


@router.post(
    "/jobs",
    status_code=201,
    summary="Start a job",
    description="Tune a model for a target within a budget: `trials`, `time_limit_s`, or both, whichever ends first; "
    "512 trials without either. The same `Idempotency-Key` with the same body answers with the same job, and "
    "`Idempotency-Replayed: true`.",
    response_description="The job, in the queue; `Location` is its address",
    responses=problem_responses(
        "model_not_found",
        "samples_not_found",
        "no_device",
        TargetError,
        "invalid_budget",
        "invalid_idempotency_key",
        "idempotency_key_reused",
        QueueFull,
        TooManyJobs,
    ),
)
def create_job(
    request: JobCreate,
    response: Response,
    services: ServicesDep,
    idempotency_key: Annotated[
        str | None, Header(description="1 to 255 characters that no other request of yours has")
    ] = None,
) -> JobSchema:
    created = commands.create_job(services, request, idempotency_key=idempotency_key)
    response.headers["Location"] = f"/api/v1/jobs/{created.job.id}"
    if created.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return created.job


@router.get(
    "/jobs",
    summary="List jobs",
    description="Newest first. Every parameter that is given narrows the list.",
    response_description="One page of jobs",
    responses=problem_responses("invalid_cursor"),
)
def list_jobs(
    services: ServicesDep,
    state: Annotated[list[JobState], Query(description="only jobs in these states")] = [],  # noqa: B006
    model_id: Annotated[str | None, Query(description="only jobs of this model (its whole id)")] = None,
    target: Annotated[str | None, Query(description="only jobs for this target")] = None,
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


@router.get(
    "/jobs/{job_id}",
    summary="Read one job",
    description="State, stage and outcome, place in the queue, progress with the estimated time left, the best so far, "
    "the untuned build and ONNX Runtime, and the error of a failed job.",
    response_description="The job",
    responses=problem_responses("job_not_found"),
)
def get_job(job_id: JobId, services: ServicesDep) -> JobSchema:
    return jobs.get_job(services.database, job_id)


@router.post(
    "/jobs/{job_id}/cancel",
    status_code=202,
    summary="Cancel a job",
    description="A waiting job is cancelled at once, a running one within 5 seconds. Its records stay.",
    response_description="The job, `cancelled` or `cancelling`",
    responses=problem_responses("job_not_found", "job_finished"),
)
def cancel_job(job_id: JobId, services: ServicesDep) -> JobSchema:
    return commands.cancel_job(services, job_id)


@router.delete(
    "/jobs/{job_id}",
    status_code=204,
    response_class=Response,
    summary="Delete an ended job",
    description="The job goes with its events, its log and its artifacts. Its records stay: they serve later jobs.",
    response_description="The job is gone",
    responses=problem_responses("job_not_found", "job_active"),
)
def delete_job(job_id: JobId, services: ServicesDep) -> None:
    commands.delete_job(services, job_id)


@router.get(
    "/jobs/{job_id}/tasks",
    summary="List a job's tasks",
    description="The distinct tunable functions of the model, in the model's order; empty before they are extracted.",
    response_description="All tasks; the list is a single page",
    responses=problem_responses("job_not_found"),
)
def list_tasks(job_id: JobId, services: ServicesDep) -> Page[TaskSchema]:
    return Page(items=trials.list_tasks(services.database, job_id))


@router.get(
    "/jobs/{job_id}/trials",
    summary="List a job's trials",
    description="In the order in which they were measured.",
    response_description="One page of trials",
    responses=problem_responses("job_not_found", "invalid_cursor"),
)
def list_trials(
    job_id: JobId,
    services: ServicesDep,
    task: Annotated[str | None, Query(description="only trials of the task with this `key`")] = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=10_000, description="trials a page")] = DEFAULT_PAGE,
) -> Page[TrialSchema]:
    return trials.list_trials(services.database, job_id, task=task, cursor=cursor, limit=limit)


@router.get(
    "/jobs/{job_id}/log",
    summary="Read a job's log",
    description="Lines with time and level, oldest first. With `format=text`: everything that the job's process wrote, "
    "as plain text.",
    responses={
        **file_responses("text/plain", description="One page of lines, or the whole text"),
        **problem_responses("job_not_found", "invalid_cursor"),
    },
    response_model=Page[LogLine],
)
def get_log(
    job_id: JobId,
    services: ServicesDep,
    format: Annotated[Literal["json", "text"], Query(description="lines one by one, or plain text")] = "json",
    cursor: Cursor = None,
    limit: Limit = DEFAULT_PAGE,
) -> Page[LogLine] | Response:
    if format == "json":
        return jobs.list_log(services.database, job_id, cursor=cursor, limit=limit)
    jobs.get_job(services.database, job_id)
    path = services.settings.job_log(job_id)
    if not path.is_file():
        return PlainTextResponse("")
    return StoredFile(path, media_type="text/plain; charset=utf-8")


@router.get(
    "/jobs/{job_id}/artifacts",
    summary="List what a job produced",
    description="The bundle first. `kind` is `bundle`, `signature`, `manifest`, `records` or `schedules`.",
    response_description="All artifacts; the list is a single page",
    responses=problem_responses("job_not_found"),
)
def list_artifacts(job_id: JobId, services: ServicesDep) -> Page[ArtifactSchema]:
    return Page(items=artifacts.list_artifacts(services.database, job_id))


@router.get(
    "/jobs/{job_id}/front",
    summary="Read memory against latency",
    description="The builds that the job measured, then the Pareto front of all ways of computing the network. Bytes "
    "are what a run allocates beside weights and inputs.",
    response_description="The points, least memory first among the estimated ones",
    responses=problem_responses("job_not_found", StorageUnavailable),
)
def get_front(job_id: JobId, services: ServicesDep) -> Front:
    manifest = artifacts.get_manifest(services.database, services.blobs, job_id)
    return jobs.get_front(services.database, job_id, manifest)


class EventStream(StreamingResponse):
    """Server-sent events that were written once for all streams; FastAPI's own response writes them for each."""

    media_type = "text/event-stream"


async def _existing_job(job_id: JobId, services: ServicesDep) -> str:
    """Answers 404 before a stream begins."""
    await run_sync(jobs.get_job, services.database, job_id)
    return job_id


@router.get(
    "/jobs/{job_id}/events",
    response_class=EventStream,
    summary="Follow a job's events",
    description="Server-sent events as they happen, from the first one on. After a final state and its last event "
    "comes `end`, and the stream closes. `Last-Event-ID` (or `?after=`) resumes behind that event. The stream also "
    "ends when the token or the session is revoked or expires.",
    response_description="The stream: `event` is the kind, `id` the event's number, `data` is JSON",
    responses=problem_responses("job_not_found"),
)
async def stream_events(
    services: ServicesDep,
    feed: FeedDep,
    access: AccessDep,
    principal: PrincipalDep,
    job_id: Annotated[str, Depends(_existing_job)],
    last_event_id: Annotated[str | None, Header(description="resume behind this event; before `after`")] = None,
    after: Annotated[int, Query(ge=0, le=2**62, description="resume behind the event with this id")] = 0,
) -> EventStream:
    if last_event_id is not None and last_event_id.isdecimal():
        after = min(int(last_event_id), 2**62)
    allowed = partial(access.authenticator.still_allows, principal)
    return EventStream(_events(services, feed, job_id, after=after, allowed=allowed), headers=_STREAM_HEADERS)


async def _events(
    services: ProjectServices, feed: EventFeed, job_id: str, *, after: int, allowed: Callable[[], Awaitable[bool]]
) -> AsyncIterator[bytes]:
    yield format_sse_event(retry=_RETRY_MS)
    told_at = time.monotonic()
    while await allowed():
        look = await feed.look(services.database, job_id, after=after)
        if look.text:
            after, told_at = look.last_id, time.monotonic()
            yield look.text
        elif look.state is None or look.state in FINAL_STATES:
            yield sse("end", {"state": look.state.value if look.state else "deleted"})
            return
        elif services.stopping.is_set():
            return
        else:
            if time.monotonic() - told_at > _PING_S:
                told_at = time.monotonic()
                yield KEEPALIVE_COMMENT
            await anyio.sleep(POLL_S)
