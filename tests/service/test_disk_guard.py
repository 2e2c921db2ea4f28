"""With too little space on the disk of the data directory everything that would fill it waits, or is refused."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from service.checkup import check_up
from service.database.tables import Job
from service.settings import GIB, Settings
from tests.service.conftest import Served, ended, services_of, start, until, upload
from tests.service.test_engine import is_ready, job_pid, log_of
from tests.signed_in import TestClient

MIB = 1024**2
ORIGIN = {"origin": "http://localhost"}
Free = Callable[[int], None]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Say how many bytes are free on every disk from now on."""
    measure, given = shutil.disk_usage, list[int]()

    def measured(path: Path) -> Any:
        usage = measure(path)
        return usage._replace(free=given[-1]) if given else usage

    monkeypatch.setattr(shutil, "disk_usage", measured)
    return given.append


def row_of(client: TestClient, job_id: str) -> Job:
    with services_of(client).database.read() as session:
        job = session.get(Job, job_id)
        assert job is not None
        return job


def put_back(client: TestClient, job_id: str) -> dict[str, Any]:
    """The job, once it waits for its second attempt."""

    def look() -> dict[str, Any] | None:
        job: dict[str, Any] = client.get(f"/api/v1/jobs/{job_id}").json()
        return job if (job["state"], job["attempts"]) == ("queued", 1) else None

    return until(look)


def hurry(client: TestClient, job_id: str) -> None:
    with services_of(client).database.write() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.not_before = None


def test_jobs_wait_and_say_why_until_there_is_space(
    fake: Served, model_file: Path, settings: Settings, free: Free
) -> None:
    with fake("succeed", min_free_disk_bytes=100 * MIB) as client:
        model_id = upload(client, model_file)
        free(30 * MIB)
        job_id = client.post("/api/v1/jobs", json={"model_id": model_id, "trials": 8}).json()["id"]
        told = until(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["waiting_for"])
        assert f"30 MiB are free on the disk of {settings.data_dir}, 100 MiB are needed" in told
        assert "tessera doctor --clean" in told
        assert "Waiting for space: 30 MiB are free" in client.get(f"/jobs/{job_id}").text
        free(100 * MIB)
        assert ended(client, job_id)["state"] == "succeeded"


def test_the_guard_can_be_turned_off(fake: Served, model_file: Path, free: Free) -> None:
    free(0)
    with fake("succeed", min_free_disk_bytes=0) as client:
        assert ended(client, start(client, model_file))["state"] == "succeeded"
        assert client.get("/readyz").status_code == 200


@pytest.mark.parametrize("form", [False, True])
@pytest.mark.parametrize("path", ["/api/v1/models", "/api/v1/samples", "/api/v1/records", "/new", "/records"])
def test_uploads_are_refused_before_they_are_read(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, free: Free, path: str, form: bool
) -> None:
    def unread(_: Request) -> None:
        raise AssertionError("the upload was read")

    free(10 * MIB)
    monkeypatch.setattr(Request, "stream", unread)
    sent: dict[str, Any] = {"files": {"file": ("m.onnx", b"x" * 1000)}} if form else {"content": b"x" * 1000}
    answer = client.post(path, headers=ORIGIN, **sent)
    assert answer.status_code == 507
    assert "10 MiB are free" in answer.text
    if path.startswith("/api/"):
        assert answer.json()["code"] == "storage_full"
        assert "tessera doctor --clean" in answer.json()["hint"]


def test_an_upload_that_would_take_the_space_is_refused(client: TestClient, model_file: Path, free: Free) -> None:
    size_bytes = model_file.stat().st_size
    free(GIB + size_bytes - 1)
    refused = client.post("/api/v1/models?filename=m.onnx", content=model_file.read_bytes())
    assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
    free(GIB + size_bytes)
    assert client.post("/api/v1/models?filename=m.onnx", content=model_file.read_bytes()).status_code == 201


def test_readiness_and_the_doctor_say_it(client: TestClient, settings: Settings, free: Free) -> None:
    free(10 * MIB)
    answer = client.get("/readyz")
    assert answer.status_code == 503
    (wrong,) = [check for check in answer.json()["checks"] if not check["ok"]]
    assert wrong["name"] == "disk"
    assert "10 MiB are free" in wrong["detail"]
    (found,) = [check for check in check_up(settings) if check.name == "free disk"]
    assert not found.ok
    assert "10 MiB are free" in found.detail
    assert "tessera doctor --clean" in found.hint


@pytest.mark.parametrize("how", ["full", "wrapped"])
def test_a_job_that_had_no_space_goes_back_and_resumes(
    fake: Served, model_file: Path, settings: Settings, how: str
) -> None:
    with fake(f"record+{how},succeed") as client:
        job_id = start(client, model_file)
        assert put_back(client, job_id)["error"] is None
        assert "There was no space left on a disk" in log_of(client, job_id)
        assert not settings.work_dir(job_id).exists()
        # The guard sees enough space, so that it is not tried again at once.
        assert row_of(client, job_id).not_before is not None
        hurry(client, job_id)
        job = ended(client, job_id)
        assert (job["state"], job["attempts"]) == ("succeeded", 2)
        trials = client.get(f"/api/v1/jobs/{job_id}/trials").json()["items"]
        assert [trial["number"] for trial in trials] == [1, 2, 3, 4]


def test_a_job_that_dies_while_there_is_no_space_is_not_blamed(
    fake: Served, model_file: Path, settings: Settings, free: Free
) -> None:
    with fake("hang,succeed", max_attempts_without_record=1) as client:
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id))
        free(10 * MIB)
        os.kill(job_pid(job_id), signal.SIGBUS)
        put_back(client, job_id)
        assert "SIGBUS) while 10 MiB are free" in log_of(client, job_id)
        until(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["waiting_for"])
        row = row_of(client, job_id)
        assert (row.crash, row.barren_attempts) == (None, 0)
        free(10 * GIB)
        assert ended(client, job_id)["state"] == "succeeded"
