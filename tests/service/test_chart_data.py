"""What the convergence charts are drawn from: every trial once, by columns, and the knobs of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.dashboard import chart_data
from service.services import ProjectServices
from service.stores import JobReporter
from tests.acceptance import seed
from tests.service.conftest import start
from tests.service.tuning import claimed
from tests.signed_in import TestClient

TRIALS = 150


@pytest.fixture
def job_id(client: TestClient, services: ProjectServices, model_file: Path) -> str:
    job_id = start(client, model_file, trials=TRIALS)
    assert claimed(services.database) == job_id
    seed.tune(services, job_id, JobReporter(services.database, job_id), trials=TRIALS, total=TRIALS)
    return job_id


def test_columns_tell_the_same_as_the_trials(client: TestClient, job_id: str) -> None:
    trials = client.get(f"/api/v1/jobs/{job_id}/trials?limit=1000").json()["items"]
    answer = client.get(f"/jobs/{job_id}/chart")
    assert answer.headers["cache-control"] == "no-store"
    page = answer.json()
    assert page["next"] is None
    columns = page["columns"]
    assert columns["number"] == list(range(1, TRIALS + 1))
    for name, values in columns.items():
        expected = [trial[name] for trial in trials]
        assert values == ([us and round(us, 3) for us in expected] if name.endswith("_us") else expected)
    assert any(columns["failure"])
    assert None in columns["estimated_us"]
    assert 5 * len(answer.content) < len(client.get(f"/api/v1/jobs/{job_id}/trials?limit=1000").content)


@pytest.mark.parametrize("task", [None, "task2"])
def test_pages_hold_every_trial_once(
    client: TestClient, job_id: str, monkeypatch: pytest.MonkeyPatch, task: str | None
) -> None:
    query = f"&task={task}" if task else ""
    (whole,) = [client.get(f"/jobs/{job_id}/chart?{query}").json()["columns"]]
    monkeypatch.setattr(chart_data, "_TRIALS_A_PAGE", 19)
    after, numbers, tasks = 0, list[int](), set[str]()
    while after is not None:
        page = client.get(f"/jobs/{job_id}/chart?after={after}{query}").json()
        numbers += page["columns"]["number"]
        tasks |= set(page["columns"]["task"])
        after = page["next"]
    assert numbers == whole["number"]
    assert tasks == ({task} if task else {f"task{index}" for index in range(4)})


def test_a_trials_knobs_are_told_by_its_number(client: TestClient, job_id: str) -> None:
    trials = client.get(f"/api/v1/jobs/{job_id}/trials?limit=1000").json()["items"]
    assert client.get(f"/jobs/{job_id}/chart/7").json() == {"knobs": trials[6]["knobs"]}
    missing = client.get(f"/jobs/{job_id}/chart/{TRIALS + 1}")
    assert (missing.status_code, missing.json()["code"]) == (404, "trial_not_found")
    assert client.get("/jobs/none/chart").json()["code"] == "job_not_found"
    assert client.get("/jobs/none/chart/1").json()["code"] == "job_not_found"


def test_a_job_without_trials_has_empty_columns(client: TestClient, model_file: Path) -> None:
    page = client.get(f"/jobs/{start(client, model_file)}/chart").json()
    assert page["next"] is None
    assert all(values == [] for values in page["columns"].values())
    assert page["columns"].keys() >= {"number", "task", "failure", "latency_us", "task_best_us", "estimated_us"}
