"""The page of one task of a job: its winning schedule, what it was made of, and what its trials say of the knobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from service.dashboard import convergence
from service.dashboard.importance import LEAST_TRIALS, knob_importance
from service.dashboard.memory_pictures import windows_drawing
from service.dashboard.nest import boxes, diff
from service.dashboard.pages import PageRoute, render, services_of
from service.errors import NotFound
from service.jobs.states import FINAL_STATES, JobState
from service.queries.artifacts import get_manifest, get_schedule
from service.queries.jobs import get_job
from service.queries.trials import list_tasks, measured_knobs
from service.schemas.jobs import JobSchema
from service.schemas.tasks import TaskSchema

router = APIRouter(route_class=PageRoute, include_in_schema=False)
_CHOSEN_BY = {
    "records": "Measured: the fastest schedule that passed its check.",
    "cost_model": "Guessed by the cost model: the budget left no measured schedule of this task.",
    "analytic": "The analytic default schedule: the budget left no measured schedule of this task.",
    "none": "Without a schedule: the function is built as it comes.",
}


@router.get("/jobs/{job_id}/tasks/{task_key}")
def show_task(request: Request, job_id: str, task_key: str) -> Response:
    services = services_of(request)
    database = services.database
    last_event = convergence.last_event_id(database, job_id)
    job = get_job(database, job_id)
    task = next((each for each in list_tasks(database, job_id) if each.key == task_key), None)
    if task is None:
        raise NotFound(
            f"The job has no task {task_key!r}.",
            code="task_not_found",
            hint="The job's page lists its tasks, once they are extracted.",
        )
    trials = measured_knobs(database, job_id, task_key)
    schedule = get_schedule(database, services.blobs, job_id, task_key)
    after = schedule["after"] if schedule else None
    context = {
        "job": job,
        "task": task,
        "last_event": last_event,
        "live": job.state not in FINAL_STATES,
        "median_us": median(latency_us for _, latency_us in trials) if trials else None,
        "importance": knob_importance(trials),
        "least_trials": LEAST_TRIALS,
        "schedule": schedule,
        "knobs": (schedule["knobs"] if schedule else {}) or task.knobs,
        "chosen_by": _CHOSEN_BY.get(schedule["chosen_by"], "") if schedule else "",
        "boxes": boxes(schedule["nest"]) if schedule else (),
        "buffers": _buffers(schedule) if schedule else (),
        "windows": _windows(get_manifest(database, services.blobs, job_id), task) if schedule else (),
        "diff": diff(schedule["before"]["script"], after["script"]) if schedule and after else (),
        "missing": "" if schedule else _why_missing(job, task),
    }
    return render("task.html", context, here="/")


def _buffers(schedule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the function is given, then what it allocates."""
    allocated = [{**line, "role": "allocated"} for line in schedule["nest"] if line["what"] == "buffer"]
    return [*schedule["parameters"], *allocated]


def _windows(manifest: Mapping[str, Any] | None, task: TaskSchema) -> Sequence[Markup]:
    """The drawings of the chain that the task computes by windows, where the shipped network does."""
    used = {(use.choice, use.way) for use in task.uses}
    memory = (manifest or {}).get("memory") or {}
    chains = (each for each in memory.get("windows") or () if (each["chain"], each["way"]) in used)
    return [windows_drawing(part) for chain in chains for part in chain["parts"]]


def _why_missing(job: JobSchema, task: TaskSchema) -> str:
    """Why there is no schedule to show."""
    if job.state in (JobState.FAILED, JobState.CANCELLED):
        return f"The job {'failed' if job.state == JobState.FAILED else 'was cancelled'} before any schedule was built."
    if job.state != JobState.SUCCEEDED:
        return "Schedules are kept when the job ends: the search may still find a better one."
    if not task.used:
        return "The network computes this part in another way, so no schedule of this task was built."
    return "The job kept no schedule of this task: it was made by an earlier version, or its schedules are too long."
