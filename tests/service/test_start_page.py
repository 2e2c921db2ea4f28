"""The form that starts jobs, as a browser without scripts sends it, and what the check says beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.dashboard import new_pages
from service.jobs import queue
from service.jobs.commands import cancel_job
from service.jobs.states import JobState
from service.queries.jobs import EarlierLimits, earlier_limits
from service.services import ProjectServices
from service.settings import Settings
from tests.service.conftest import start, upload
from tests.service.tuning import claimed
from tests.signed_in import TestClient

ORIGIN = {"origin": "http://localhost"}
FIELDS = {"target": "host", "budget": "trials", "trials": "8", "minutes": "10", "seed": "0", "memory": ""}


def send(client: TestClient, model_id: str, **fields: str) -> Any:
    return client.post(
        f"/new/{model_id}", data={**FIELDS, "action": "start", **fields}, headers=ORIGIN, follow_redirects=False
    )


def test_both_budgets_and_a_memory_limit_reach_the_job(client: TestClient, model_file: Path) -> None:
    sent = send(client, upload(client, model_file), budget="both", minutes="2.5", memory="1.5 MiB")
    job = client.get("/api/v1" + sent.headers["location"]).json()
    assert job["budget"] == {"trials": 8, "time_limit_s": 150.0}
    assert job["memory_limit_bytes"] == 3 * 2**19


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"budget": "time", "minutes": "soon"}, "Minutes: &#39;soon&#39; is not a time"),
        ({"budget": "both", "minutes": "-1"}, "Write minutes above zero, at most 43200 (30 days)"),
        ({"memory": "1.5 pounds"}, "Memory limit: &#39;1.5 pounds&#39; is not a size"),
        ({"trials": "0"}, "Trials: &#39;0&#39; is not a whole number from 1 to 1000000"),
    ],
)
def test_what_is_wrong_is_said_and_stays_in_its_field(
    client: TestClient, model_file: Path, fields: dict[str, str], told: str
) -> None:
    sent = send(client, upload(client, model_file), **fields)
    assert sent.status_code == 422
    assert told in sent.text
    for name, value in fields.items():
        if name != "budget":
            assert f'name="{name}" value="{value}"' in sent.text
    assert client.get("/api/v1/jobs").json()["items"] == []


def test_several_jobs_find_a_place_or_none_does(settings: Settings, model_file: Path) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_queued_jobs": 1}), engine=False)) as client:
        sent = send(client, upload(client, model_file), also="riscv64")
        assert sent.status_code == 429
        assert "1 jobs wait in the queue" in sent.text
        assert client.get("/api/v1/jobs").json()["items"] == []


def checked(client: TestClient, monkeypatch: pytest.MonkeyPatch, model_id: str, target: str = "host") -> str:
    """The page after "Check model", whose report is given."""
    report = new_pages.CheckReport(
        model_id=model_id,
        target=target,
        operators={"Conv": 2},
        inputs=[],
        outputs=[],
        flops=1e9,
        weights_bytes=4096,
        peak_activation_bytes=7 * 2**20,
        least_memory_bytes=2**20,
        usual_memory_bytes=8 * 2**20,
        seconds_per_100_trials=20.0,
    )
    monkeypatch.setattr(new_pages, "check", lambda *_, **__: report)
    answer = client.post(
        f"/new/{model_id}", data={**FIELDS, "target": target, "trials": "512", "action": "check"}, headers=ORIGIN
    )
    assert answer.status_code == 200
    return str(answer.text)


def test_the_check_says_how_long_and_between_which_limits(
    client: TestClient, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_id = upload(client, model_file)
    before = client.get(f"/new?model={model_id}").text
    assert 'id="memory-slider"' not in before
    assert "The check finds out which limits are possible." in before
    page = checked(client, monkeypatch, model_id).replace("\N{NO-BREAK SPACE}", " ")
    assert "512 trials: about 1 min 42 s." in page
    slider = re.search(r'<input type="range"[^>]*>', page)
    assert slider is not None
    assert f'min="{round(1.05 * 2**20)}" max="{8 * 2**20}"' in slider[0]
    assert " name=" not in slider[0], "only the field beside it is sent"
    assert "Limits from 1.05 MiB on can be kept" in page.replace("\u00a0", " ")
    # Nothing measures this one, so no trials are counted.
    assert 'data-seconds-per-trial="0.0"' in checked(client, monkeypatch, model_id, target="riscv64")


def test_earlier_jobs_of_the_same_model_target_and_shapes_count(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    def finished(state: JobState, limit_bytes: int, *, needed: int | None = None, **body: object) -> None:
        job_id = start(client, model_file, memory_limit_bytes=limit_bytes, **body)
        assert claimed(services.database) == job_id
        details = {"least_bytes": needed, "memory_limit_bytes": limit_bytes}
        error = {"code": "memory_limit_infeasible", "message": "", "hint": "", "details": details} if needed else None
        assert queue.finish(services.database, job_id, state, error=error)

    def found(**other: Any) -> EarlierLimits:
        same = {"model_id": upload(client, model_file), "target": "host", "input_shapes": {}}
        return earlier_limits(services.database, **{**same, **other})

    assert found() == EarlierLimits()
    finished(JobState.SUCCEEDED, 5000)
    finished(JobState.SUCCEEDED, 4000)
    finished(JobState.FAILED, 1000, needed=3000)
    finished(JobState.FAILED, 900, needed=2900)
    cancel_job(services, start(client, model_file, memory_limit_bytes=10))
    finished(JobState.SUCCEEDED, 20, input_shapes={"x": [1, 32]})
    start(client, model_file, memory_limit_bytes=30)
    assert found() == EarlierLimits(kept_bytes=4000, needed_bytes=3000)
    assert found(input_shapes={"x": [1, 32]}) == EarlierLimits(kept_bytes=20)
    assert found(target="riscv64") == found(model_id="0" * 64) == EarlierLimits()


def test_tune_again_asks_for_the_same(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    job_id = start(client, model_file, trials=64, time_limit_s=90.0, memory_limit_bytes=3 * 2**19)
    assert claimed(services.database) == job_id
    assert queue.finish(services.database, job_id, JobState.SUCCEEDED)
    link = re.search(r'href="(/new\?[^"]+)"', client.get(f"/jobs/{job_id}").text)
    assert link is not None
    page = client.get(link[1].replace("&amp;", "&")).text
    assert re.search(r'id="by-both" value="both" checked', page)
    assert 'name="trials" value="64"' in page
    assert 'name="minutes" value="1.5"' in page
    assert 'name="memory" value="1.5 MiB"' in page
