"""What people do with jobs: create, cancel, delete."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.database.tables import Artifact, IdempotencyKey, Job, JobEvent, Samples
from service.database.wall import OF_ALL_PROJECTS
from service.errors import Conflict, Invalid, NotFound, QueueFull, TooManyJobs
from service.ids import new_id
from service.jobs import queue
from service.jobs.states import FINAL_STATES, JobState
from service.queries.jobs import find_job, get_job
from service.queries.models import find_model
from service.queries.targets import find_spec
from service.references import delete_unreferenced
from service.schemas.jobs import JobCreate, JobSchema
from service.services import ProjectServices
from tuner.request import DEFAULT_TRIALS
from tuner.targets import no_device

_MAX_KEY_LENGTH = 255


@dataclass(frozen=True, kw_only=True)
class Created:
    job: JobSchema
    replayed: bool


def create_job(services: ProjectServices, request: JobCreate, *, idempotency_key: str | None = None) -> Created:
    """Put a job into the queue.

    The same ``idempotency_key`` with the same request answers with the same job; with another request it
    raises `Invalid` (``idempotency_key_reused``). Raises `NotFound` for an unknown model, `TargetError`
    (``unknown_target``), `Conflict` (``no_device``) for a target that nothing here can measure, `QueueFull`, and
    `TooManyJobs` where the user has as many as one may have.
    """
    if idempotency_key is not None and not 0 < len(idempotency_key) <= _MAX_KEY_LENGTH:
        raise Invalid(f"An Idempotency-Key has 1 to {_MAX_KEY_LENGTH} characters.", code="invalid_idempotency_key")
    digest = hashlib.sha256(request.model_dump_json().encode()).hexdigest()
    with services.database.write() as session:
        repeated = select(IdempotencyKey).where(IdempotencyKey.key == idempotency_key)
        if idempotency_key is not None and (known := session.scalar(repeated)) is not None:
            if known.request_sha256 != digest:
                raise Invalid(
                    "This Idempotency-Key was used for another request.",
                    code="idempotency_key_reused",
                    hint="Use a new key for a new job, or repeat the first request unchanged.",
                )
            job_id, replayed = known.job_id, True
        else:
            job_id, replayed = _add_job(session, services, request), False
            if idempotency_key is not None:
                session.add(IdempotencyKey(key=idempotency_key, request_sha256=digest, job_id=job_id))
    if services.engine is not None:
        services.engine.wake()
    return Created(job=get_job(services.database, job_id), replayed=replayed)


def create_jobs(services: ProjectServices, requests: Sequence[JobCreate]) -> list[str]:
    """Put several jobs into the queue, or none where one of them is refused (see `create_job`); their ids."""
    with services.database.write() as session:
        job_ids = [_add_job(session, services, request) for request in requests]
    if services.engine is not None:
        services.engine.wake()
    return job_ids


def cancel_job(services: ProjectServices, job_id: str) -> JobSchema:
    """Cancel a job; one that has ended already raises `Conflict` (``job_finished``)."""
    get_job(services.database, job_id)
    if queue.request_cancel(services.database, job_id) is None:
        job = get_job(services.database, job_id)
        raise Conflict(
            f"The job has {job.state.value} already.",
            code="job_finished",
            hint="Only waiting and running jobs can be cancelled.",
        )
    if services.engine is not None:
        services.engine.wake()
    return get_job(services.database, job_id)


def delete_job(services: ProjectServices, job_id: str) -> None:
    """Delete an ended job with its artifacts, events and log; its records stay, they belong to the target."""
    with services.database.write() as session:
        job = find_job(session, job_id)
        if JobState(job.state) not in FINAL_STATES:
            raise Conflict(f"The job is {job.state}.", code="job_active", hint="Cancel the job first, then delete it.")
        blobs = set(session.scalars(select(Artifact.sha256).where(Artifact.job_id == job_id)))
        session.delete(job)
    delete_unreferenced(services.database, services.blobs, blobs)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(services.settings.jobs_dir / job_id)


def _add_job(session: Session, services: ProjectServices, request: JobCreate) -> str:
    """Add a job to the queue in the transaction of a writer: no other one can take its place there meanwhile."""
    job = _new_job(request, model_id=find_model(session, request.model_id).id)
    spec = find_spec(session, request.target)
    if request.measure == "device" and services.waiting_for(spec) is not None:
        refusal = no_device(spec)
        raise Conflict(refusal.message, code=refusal.code, hint=refusal.hint, details=refusal.details)
    job.target_fingerprint, job.target_spec = spec.fingerprint, spec.as_dict()
    known = select(Samples.id).where(Samples.id == request.samples)
    if request.samples is not None and session.scalar(known) is None:
        raise NotFound(
            f"There are no samples {request.samples!r}.",
            code="samples_not_found",
            hint="Upload the .npz first: POST /api/v1/samples.",
        )
    _require_place(session, services)
    job.submitted_by = services.user
    session.add(job)
    session.flush()
    session.add(JobEvent(job_id=job.id, kind="state", data={"state": JobState.QUEUED.value}))
    return job.id


def _require_place(session: Session, services: ProjectServices) -> None:
    """Raises `QueueFull` and `TooManyJobs`."""
    waiting = select(func.count()).select_from(Job).where(Job.state == JobState.QUEUED.value)
    queued = session.scalar(waiting, execution_options=OF_ALL_PROJECTS) or 0
    if queued >= (most := services.settings.max_queued_jobs):
        raise QueueFull(f"{queued} jobs wait in the queue, and no more than {most} may.")
    if (allowed := services.settings.max_jobs_per_user) is None:
        return
    unfinished = Job.state.not_in([state.value for state in FINAL_STATES])
    query = select(func.count()).select_from(Job).where(Job.submitted_by == services.user, unfinished)
    if (own := session.scalar(query) or 0) >= allowed:
        raise TooManyJobs(f"{own} jobs of {services.user!r} wait or run, and no more than {allowed} may.")


def _new_job(request: JobCreate, *, model_id: str) -> Job:
    trials = request.trials
    if trials is None and request.time_limit_s is None:
        trials = DEFAULT_TRIALS
    return Job(
        id=new_id(),
        model_id=model_id,
        target=request.target,
        trials=trials,
        trials_total=trials,
        time_limit_s=request.time_limit_s,
        memory_limit_bytes=request.memory_limit_bytes,
        input_shapes=request.input_shapes,
        samples_id=request.samples,
        measure=request.measure.value,
        seed=request.seed,
        state=JobState.QUEUED.value,
    )
