"""What a job's events leave beside it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from sqlalchemy import select
from starlette.testclient import TestClient

from service.database.tables import Job
from service.queries.jobs import get_job
from service.services import Services
from service.stores import JobReporter
from service.stores.steps import MOST_STEPS, add_step
from tests.acceptance import seed
from tests.service.conftest import start


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
    client: TestClient, services: Services, model_file: Path
) -> None:
    job_id = start(client, model_file)
    assert "sparkline" not in client.get("/").text
    seed.tune(services, job_id, JobReporter(services.database, job_id), trials=32, total=64)
    first = get_job(services.database, job_id).convergence
    assert len(first) >= 2
    assert first[-1][1] < first[0][1]
    resumed = JobReporter(services.database, job_id)
    with services.database.write() as session:
        resumed._improve(40, first[-1][1] + 1, session)
        resumed._improve(41, first[-1][1] / 2, session)
    with services.database.read() as session:
        kept = session.scalars(select(Job.convergence).where(Job.id == job_id)).one()
    assert [tuple(step) for step in kept] == [*first, (41, first[-1][1] / 2)]
    assert '<svg class="sparkline"' in client.get("/").text
