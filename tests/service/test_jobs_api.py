"""Jobs over REST: creation, lists, streams and downloads."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.database.tables import Job
from service.errors import QueueFull
from service.jobs import queue
from service.jobs.commands import create_job
from service.jobs.states import TRANSITIONS, JobState
from service.schemas.jobs import JobCreate
from service.services import ProjectServices
from service.settings import Settings
from service.stores import DatabaseRecordStore, JobReporter
from tests.service.conftest import Served, ended, services_of, start, upload
from tests.service.tuning import claimed, record, workload
from tests.signed_in import TestClient
from tuner.events import Log, Progress, Stage, StageStarted, TaskRecalled, TasksExtracted, TaskSummary
from tuner.records import FailureKind
from tuner.search.alternatives import Use


def sse(text: str) -> list[dict[str, str]]:
    """The events of a stream; it begins by saying how soon a browser comes back."""
    assert text.startswith("retry: 500\n\n")
    events = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "event" in fields:
            events.append(fields)
    return events


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"trials": 0}, 422, "invalid_budget"),
        ({"trials": -5}, 422, "invalid_budget"),
        ({"trials": 1.5}, 422, "invalid_budget"),
        ({"time_limit_s": 0}, 422, "invalid_budget"),
        ({"time_limit_s": -1}, 422, "invalid_budget"),
        ({"memory_limit_bytes": 0}, 422, "invalid_budget"),
        ({"target": "toaster"}, 422, "unknown_target"),
        ({"model_id": "0" * 64}, 404, "model_not_found"),
        ({"samples": "0" * 64}, 404, "samples_not_found"),
        ({"seed": -1}, 422, "invalid_request"),
        ({"surprise": 1}, 422, "invalid_request"),
        ({"input_shapes": {"x": [0]}}, 422, "invalid_request"),
        ({"measure": "guess"}, 422, "invalid_request"),
    ],
)
def test_a_bad_request_is_a_problem_and_stores_nothing(
    client: TestClient, model_file: Path, body: dict[str, Any], status: int, code: str
) -> None:
    response = client.post("/api/v1/jobs", json={"model_id": upload(client, model_file), **body})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["hint"]
    assert client.get("/api/v1/jobs").json()["items"] == []


@pytest.mark.parametrize(
    "path", ["", "/tasks", "/trials", "/log", "/log?format=text", "/artifacts", "/front", "/events"]
)
def test_an_unknown_job_is_a_problem(client: TestClient, path: str) -> None:
    response = client.get(f"/api/v1/jobs/nope{path}")
    assert (response.status_code, response.json()["code"]) == (404, "job_not_found")
    assert "tessera jobs list" in response.json()["hint"]


def test_other_errors_are_problems_too(client: TestClient) -> None:
    for response, status, code in [
        (client.get("/api/v1/nothing"), 404, "route_not_found"),
        (client.put("/api/v1/jobs"), 405, "method_not_allowed"),
        (client.post("/api/v1/jobs", content=b"{"), 422, "invalid_request"),
        (client.get("/api/v1/jobs?limit=0"), 422, "invalid_request"),
        (client.get("/api/v1/jobs?cursor=garbage"), 422, "invalid_cursor"),
        (client.get("/api/v1/targets/nope"), 404, "unknown_target"),
        (client.get("/api/v1/artifacts/nope/download"), 404, "artifact_not_found"),
        (client.get("/api/v1/cost-models/nope"), 404, "cost_model_not_found"),
        (client.post("/api/v1/jobs", json={}, headers={"origin": "http://evil.example"}), 403, "cross_origin"),
    ]:
        assert (response.status_code, response.json()["code"]) == (status, code), response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["hint"]


def test_the_same_key_answers_with_the_same_job(client: TestClient, model_file: Path) -> None:
    body = {"model_id": upload(client, model_file), "trials": 8}
    headers = {"Idempotency-Key": "k1"}
    first = client.post("/api/v1/jobs", json=body, headers=headers)
    again = client.post("/api/v1/jobs", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"] == f"/api/v1/jobs/{first.json()['id']}"
    other = client.post("/api/v1/jobs", json={**body, "trials": 9}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert len(client.get("/api/v1/jobs").json()["items"]) == 1


def test_a_full_queue_refuses_until_there_is_a_place(settings: Settings, model_file: Path) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_queued_jobs": 2}), engine=False)) as client:
        body = {"model_id": upload(client, model_file), "trials": 8}
        headers = {"Idempotency-Key": "k1"}
        first = client.post("/api/v1/jobs", json=body, headers=headers).json()["id"]
        second = start(client, model_file, seed=1)
        refused = client.post("/api/v1/jobs", json={**body, "seed": 2})
        assert (refused.status_code, refused.json()["code"]) == (429, "queue_full")
        assert "TESSERA_MAX_QUEUED_JOBS" in refused.json()["hint"]
        # What is in the queue already is no new job, and what has started takes no place.
        assert client.post("/api/v1/jobs", json=body, headers=headers).json()["id"] == first
        client.post(f"/api/v1/jobs/{second}/cancel")
        third = start(client, model_file, seed=2)
        database = services_of(client).database
        assert claimed(database) == first
        fourth = start(client, model_file, seed=3)
        # A job that goes back was there before.
        assert queue.requeue(database, first, reason="", crash=None, barren_attempts=0)
        waiting = client.get("/api/v1/jobs?state=queued").json()["items"]
        assert [job["id"] for job in waiting] == [fourth, third, first]


def test_jobs_that_come_at_once_do_not_pass_the_limit_together(settings: Settings, model_file: Path) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_queued_jobs": 3}), engine=False)) as client:
        model_id, services = upload(client, model_file), services_of(client)

        def submitted(seed: int) -> bool:
            try:
                create_job(services, JobCreate(model_id=model_id, trials=8, seed=seed))
            except QueueFull:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(submitted, range(16))) == 3


def test_pages_hold_every_job_once(client: TestClient, model_file: Path) -> None:
    made = [start(client, model_file, seed=seed) for seed in range(7)]
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = client.get("/api/v1/jobs", params={"limit": 3} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["items"]) <= 3
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
    assert seen == made[::-1]
    assert [job["queue_position"] for job in client.get("/api/v1/jobs").json()["items"]] == [7, 6, 5, 4, 3, 2, 1]
    assert client.get("/api/v1/jobs?state=running").json()["items"] == []


def test_trials_are_paged_with_their_estimates(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    job_id = start(client, model_file)
    store = DatabaseRecordStore(services.database, job_id)
    store.add_workload(workload(1))
    store.add([record(n, failure=FailureKind.BUILD_ERROR if n == 3 else None) for n in range(1, 6)])
    page = client.get(f"/api/v1/jobs/{job_id}/trials?limit=2").json()
    assert [trial["number"] for trial in page["items"]] == [1, 2]
    rest = client.get(f"/api/v1/jobs/{job_id}/trials", params={"cursor": page["next_cursor"]}).json()
    assert [trial["failure"] for trial in rest["items"]] == ["build_error", None, None]
    assert rest["next_cursor"] is None


def test_events_resume_behind_the_last_one_seen(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    job_id = start(client, model_file)
    assert claimed(services.database) == job_id
    reporter = JobReporter(services.database, job_id)
    reporter.emit(StageStarted(stage=Stage.TUNE))
    reporter.emit(Progress(trials_done=3, trials_total=8, fraction=0.375, eta_s=9.5, estimated_us=float("inf")))
    reporter.emit(Log(message="two\nlines"))
    queue.finish(services.database, job_id, JobState.SUCCEEDED, outcome="improved")
    whole = client.get(f"/api/v1/jobs/{job_id}/events")
    assert whole.headers["content-type"].startswith("text/event-stream")
    events = sse(whole.text)
    assert [e["event"] for e in events] == ["state", "state", "stage", "progress", "log", "state", "end"]
    assert json.loads(events[3]["data"])["estimated_us"] is None
    ids = [int(e["id"]) for e in events[:-1]]
    assert ids == sorted(set(ids))
    resumed = client.get(f"/api/v1/jobs/{job_id}/events", headers={"Last-Event-ID": events[2]["id"]})
    assert sse(resumed.text) == events[3:]
    assert sse(client.get(f"/api/v1/jobs/{job_id}/events?after={events[4]['id']}").text) == events[5:]


def test_what_earlier_jobs_know_of_a_task_is_shown_before_its_first_trial(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    job_id = start(client, model_file)
    assert claimed(services.database) == job_id
    reporter = JobReporter(services.database, job_id)
    summaries = [
        TaskSummary(key=key, name=key, workload=key, uses=(Use(count=1),), flops=1e6) for key in ("conv", "dense")
    ]
    reporter.emit(TasksExtracted(tasks=tuple(summaries)))
    reporter.emit(TaskRecalled(task="conv", best_us=12.5, knobs={"unroll": 16}))
    tasks = {task["key"]: task for task in client.get(f"/api/v1/jobs/{job_id}/tasks").json()["items"]}
    assert (tasks["conv"]["best_us"], tasks["conv"]["knobs"], tasks["conv"]["trials"]) == (12.5, {"unroll": 16}, 0)
    assert tasks["dense"]["best_us"] is None


def test_a_live_stream_ends_with_the_job(fake: Served, model_file: Path) -> None:
    with fake("succeed") as client:
        job_id = start(client, model_file)
        events = sse(client.get(f"/api/v1/jobs/{job_id}/events").text)
    kinds = [e["event"] for e in events]
    assert kinds.count("trial") == 4
    assert kinds[-3:] == ["result", "state", "end"]
    assert json.loads(events[-1]["data"]) == {"state": "succeeded"}


def test_a_download_is_whole_in_part_or_not_modified(fake: Served, model_file: Path) -> None:
    with fake("succeed") as client:
        job_id = start(client, model_file)
        ended(client, job_id)
        (bundle, *_) = client.get(f"/api/v1/jobs/{job_id}/artifacts").json()["items"]
        whole = client.get(bundle["download_url"])
        sha256 = hashlib.sha256(whole.content).hexdigest()
        assert whole.headers["etag"] == f'"{sha256}"' == f'"{bundle["sha256"]}"'
        assert "perceptron-host.tar.gz" in whole.headers["content-disposition"]
        part = client.get(bundle["download_url"], headers={"Range": "bytes=5-9"})
        assert (part.status_code, part.content) == (206, whole.content[5:10])
        assert part.headers["content-range"] == f"bytes 5-9/{len(whole.content)}"
        rest = client.get(bundle["download_url"], headers={"Range": "bytes=10-", "If-Range": whole.headers["etag"]})
        assert whole.content[:10] + rest.content == whole.content
        beyond = client.get(bundle["download_url"], headers={"Range": f"bytes={len(whole.content)}-"})
        assert beyond.status_code == 416
        same = client.get(bundle["download_url"], headers={"If-None-Match": whole.headers["etag"]})
        assert (same.status_code, same.content) == (304, b"")
        front = client.get(f"/api/v1/jobs/{job_id}/front").json()
        assert [(p["name"], p["latency_us"], p["shipped"]) for p in front["points"]] == [
            ("untuned", 100.0, False),
            ("tuned", 40.0, True),
        ]
        assert client.delete(f"/api/v1/jobs/{job_id}").status_code == 204
        assert client.get(bundle["download_url"]).status_code == 404


def test_states_change_only_along_the_transitions(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    for source in JobState:
        for state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED):
            job_id = start(client, model_file)
            with services.database.write() as session:
                job = session.get(Job, job_id)
                assert job is not None
                job.state = source.value
            assert queue.finish(services.database, job_id, state) == (state in TRANSITIONS[source]), (source, state)


def test_two_claims_never_get_the_same_job(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = [start(client, model_file, seed=seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: claimed(services.database), range(12)))
    assert sorted(job_id for job_id in found if job_id) == made
