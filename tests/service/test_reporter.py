"""What a job's events leave beside it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.database.tables import Job, JobEvent, Task, TrialRecord
from service.queries.jobs import get_job
from service.services import ProjectServices
from service.stores import JobReporter
from service.stores.steps import MOST_STEPS, add_step
from tests.acceptance import seed
from tests.service.conftest import start
from tests.signed_in import TestClient
from tuner.events import RooflineMeasured, TaskRecalled, TasksExtracted, TaskSummary, TrialMeasured, UntunedTaskMeasured
from tuner.search.alternatives import Use


def test_steps_are_improvements_and_stay_few() -> None:
    steps: list[tuple[int, float]] = []
    for number in range(1, 1001):
        before = steps
        steps = add_step(steps, number, 1000.0 - (number // 2))
        assert (steps is before) == (number % 2 == 1 and number > 1)
        assert len(steps) <= MOST_STEPS
    assert steps[0] == (1, 1000.0)
    assert steps[-1] == (1000, 500.0)
    assert max(after - before for (before, _), (after, _) in pairwise(steps)) < 80
    assert [number for number, _ in steps] == sorted({number for number, _ in steps})
    assert [us for _, us in steps] == sorted({us for _, us in steps}, reverse=True)


def test_a_job_carries_its_convergence_also_over_a_resume(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    job_id = start(client, model_file)
    assert "sparkline" not in client.get("/").text
    seed.tune(services, job_id, JobReporter(services.database, job_id), trials=32, total=64)
    first = get_job(services.database, job_id).convergence
    assert len(first) >= 2
    assert first[-1][1] < first[0][1]
    estimates = {33: first[-1][1] + 1, 34: first[-1][1] / 2}
    told: dict[str, Any] = {"task": "task0", "latency_us": 9.0, "failure": None, "task_best_us": 9.0, "knobs": {}}
    trials = [TrialMeasured(number=number, estimated_us=us, **told) for number, us in estimates.items()]
    JobReporter(services.database, job_id).emit(*trials)
    with services.database.read() as session:
        kept = session.scalars(select(Job.convergence).where(Job.id == job_id)).one()
    assert [tuple(step) for step in kept] == [*first, (34, estimates[34])]
    assert '<svg class="sparkline"' in client.get("/").text


def test_trials_that_are_told_together_leave_what_they_leave_one_by_one(
    client: TestClient, services: ProjectServices, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []
    for at_once in (1, 16):
        monkeypatch.setattr(seed, "AT_ONCE", at_once)
        job_id = start(client, model_file)
        seed.tune(services, job_id, JobReporter(services.database, job_id), trials=96, total=96)
        with services.database.read() as session:
            of_job = select(Job.trials_done, Job.estimated_us, Job.convergence).where(Job.id == job_id)
            of_tasks = select(Task.key, Task.best_us, Task.knobs).where(Task.job_id == job_id).order_by(Task.key)
            of_trials = (
                select(TrialRecord.number, TrialRecord.task, TrialRecord.task_best_us, TrialRecord.estimated_us)
                .where(TrialRecord.job_id == job_id)
                .order_by(TrialRecord.number)
            )
            told = select(JobEvent.data).where(JobEvent.job_id == job_id).order_by(JobEvent.id)
            left.append([session.execute(query).all() for query in (of_job, of_tasks, of_trials, told)])
    one_by_one, together = left
    assert one_by_one == together
    assert one_by_one[0][0].trials_done == len(one_by_one[2]) == 96
    assert all(row.knobs for row in one_by_one[1] if row.best_us)


def test_tasks_are_set_against_the_roofline_and_the_function_without_a_schedule(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    job_id = start(client, model_file)
    reporter = JobReporter(services.database, job_id)
    names = {"memory": (1e6, 1_000_000), "arithmetic": (4e8, 1_000_000), "symbolic": (1e6, None)}
    summaries = [
        TaskSummary(key=name, name=name, workload=name, uses=(Use(count=1),), flops=flops, traffic_bytes=traffic_bytes)
        for name, (flops, traffic_bytes) in names.items()
    ]
    reporter.emit(TasksExtracted(tasks=tuple(summaries)))
    for name in names:
        reporter.emit(TaskRecalled(task=name, best_us=2000.0))

    def shown(figure: str) -> dict[str, Any]:
        items = client.get(f"/api/v1/jobs/{job_id}/tasks").json()["items"]
        return {task["key"]: task[figure] for task in items}

    assert client.get(f"/api/v1/jobs/{job_id}").json()["roofline"] is None
    assert set(shown("percent_of_roofline").values()) == set(shown("untuned_us").values()) == {None}
    assert "–" in client.get(f"/jobs/{job_id}").text
    reporter.emit(RooflineMeasured(peak_gflops=400.0, bandwidth_gb_s=20.0))
    reporter.emit(UntunedTaskMeasured(task="arithmetic", latency_us=84_000.0))
    assert client.get(f"/api/v1/jobs/{job_id}").json()["roofline"] == {"peak_gflops": 400.0, "bandwidth_gb_s": 20.0}
    assert shown("traffic_bytes") == {"memory": 1_000_000, "arithmetic": 1_000_000, "symbolic": None}
    assert shown("percent_of_roofline") == {
        "memory": pytest.approx(2.5),
        "arithmetic": pytest.approx(50.0),
        "symbolic": None,
    }
    assert shown("untuned_us") == {"memory": None, "arithmetic": 84_000.0, "symbolic": None}
    page = client.get(f"/jobs/{job_id}").text.replace("\u00a0", " ")
    for label, text in (("Of roofline", "50 %"), ("Of roofline", "2.5 %"), ("Against untuned", "42.0×")):
        assert f'data-label="{label}">{text}</td>' in page
    task = client.get(f"/jobs/{job_id}/tasks/arithmetic").text.replace("\u00a0", " ")
    assert "50 % of the roofline" in task
    assert "42.0× against the function without a schedule, 84.0 ms" in task
    # A resumed job extracts its tasks again: what was measured of them stays.
    reporter.emit(TasksExtracted(tasks=tuple(summaries)))
    assert shown("untuned_us")["arithmetic"] == 84_000.0
