"""Both engines over a fake job process: every way to die, to be cancelled and to be found again."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from service.database.base import now
from service.database.tables import Job
from service.engine.processes import JOB_VARIABLE
from service.settings import Settings
from tests.service.conftest import Served, ended, services_of, start, until
from tests.signed_in import TestClient
from tuner.priority import session_niceness


def processes_of(job_id: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(JOB_VARIABLE) == job_id and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def job_processes(job_id: str) -> list[psutil.Process]:
    """Of the processes of a job those that run it, without what they started."""
    found = []
    for process in processes_of(job_id):
        with contextlib.suppress(psutil.NoSuchProcess):
            if job_id in process.cmdline():
                found.append(process)
    return found


def job_pid(job_id: str) -> int:
    """The pid of the job's own process, once it is there."""
    return until(lambda: next((each.pid for each in job_processes(job_id)), None))


def is_ready(settings: Settings, job_id: str) -> bool:
    return (settings.jobs_dir / job_id / "work" / "ready").exists()


def log_of(client: TestClient, job_id: str) -> str:
    return " ".join(line["message"] for line in client.get(f"/api/v1/jobs/{job_id}/log").json()["items"])


def test_a_job_runs_to_its_end(fake: Served, model_file: Path) -> None:
    with fake("succeed") as client:
        job_id = start(client, model_file)
        job = ended(client, job_id)
        assert (job["state"], job["outcome"], job["attempts"], job["error"]) == ("succeeded", "improved", 1, None)
        assert job["progress"] == {"trials_done": 4, "trials_total": 4, "fraction": 1.0, "eta_s": None}
        assert job["best"] == {"latency_us": 40.0, "measured": True, "estimated_us": 50.0, "spread_us": 1.0}
        artifacts = client.get(f"/api/v1/jobs/{job_id}/artifacts").json()["items"]
        assert [a["kind"] for a in artifacts] == ["bundle", "signature", "manifest", "records", "schedules"]
        (task,) = client.get(f"/api/v1/jobs/{job_id}/tasks").json()["items"]
        assert (task["trials"], task["best_us"], task["share"]) == (4, 25.0, 1.0)
        assert task["knobs"] == {"tile": [4, 4], "unroll": 16}


@pytest.mark.parametrize("death", ["record+signal:SIGKILL", "record+signal:SIGSEGV"])
def test_a_killed_job_resumes_and_keeps_its_records(fake: Served, model_file: Path, death: str) -> None:
    with fake(f"{death},succeed") as client:
        job = ended(client, job_id := start(client, model_file))
        assert (job["state"], job["attempts"]) == ("succeeded", 2)
        trials = client.get(f"/api/v1/jobs/{job_id}/trials").json()["items"]
        assert [t["number"] for t in trials] == [1, 2, 3, 4]
        assert "it resumes from its 1 records" in log_of(client, job_id)


def test_a_native_crash_twice_in_one_stage_fails_the_job(fake: Served, model_file: Path) -> None:
    with fake("record+signal:SIGSEGV") as client:
        job = ended(client, start(client, model_file))
        assert (job["state"], job["attempts"], job["stage"]) == ("failed", 2, "tune")
        error = job["error"]
        assert isinstance(error, dict)
        assert (error["code"], error["details"]) == ("compiler_crashed", {"signal": "SIGSEGV", "stage": "tune"})
        assert client.get("/readyz").status_code == 200


def test_different_crashes_are_not_the_same_crash(fake: Served, model_file: Path) -> None:
    with fake("record+signal:SIGSEGV,record+signal:SIGABRT,succeed") as client:
        job = ended(client, start(client, model_file))
        assert (job["state"], job["attempts"]) == ("succeeded", 3)


def test_a_job_that_dies_without_a_record_gives_up(fake: Served, model_file: Path) -> None:
    with fake("exit1", max_attempts_without_record=3) as client:
        job = ended(client, start(client, model_file))
        assert (job["state"], job["attempts"]) == ("failed", 3)
        assert isinstance(job["error"], dict)
        assert job["error"]["code"] == "job_died"
        assert "exit code 1" in job["error"]["message"]


def test_the_tuners_error_becomes_the_jobs(fake: Served, model_file: Path) -> None:
    with fake("refuse") as client:
        job = ended(client, start(client, model_file))
        assert job["state"] == "failed"
        assert isinstance(job["error"], dict)
        assert job["error"]["code"] == "unsupported_operators"
        assert job["error"]["details"] == {"operators": {"Foo": 2}}
        assert job["attempts"] == 1


def test_an_unexpected_exception_is_in_the_log(fake: Served, model_file: Path) -> None:
    with fake("raise") as client:
        job = ended(client, job_id := start(client, model_file))
        assert isinstance(job["error"], dict)
        assert job["error"]["code"] == "internal_error"
        url = f"/api/v1/jobs/{job_id}/log?format=text"
        text = until(lambda: told if "the tuner has a mistake" in (told := client.get(url).text) else None)
        assert "Traceback" in text


def test_cancel_ends_the_whole_family_within_five_seconds(fake: Served, model_file: Path, settings: Settings) -> None:
    with fake("family") as client:
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id))
        until(lambda: len(processes_of(job_id)) >= 3)
        asked = time.monotonic()
        answer = client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert (answer.status_code, answer.json()["state"]) == (202, "cancelling")
        assert ended(client, job_id, within_s=5)["state"] == "cancelled"
        assert time.monotonic() - asked < 5
        assert processes_of(job_id) == []
        assert not settings.work_dir(job_id).exists()
        assert client.post(f"/api/v1/jobs/{job_id}/cancel").json()["code"] == "job_finished"


def test_a_killed_job_leaves_no_orphans(fake: Served, model_file: Path, settings: Settings) -> None:
    with fake("family,succeed") as client:
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id))
        old = until(lambda: found if len(found := processes_of(job_id)) >= 3 else None)
        os.kill(job_pid(job_id), signal.SIGKILL)
        assert ended(client, job_id)["state"] == "succeeded"
        assert not [process for process in old if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def test_a_waiting_job_is_cancelled_at_once(fake: Served, model_file: Path) -> None:
    with fake("hang") as client:
        first, second = start(client, model_file), start(client, model_file, seed=1)
        until(lambda: client.get(f"/api/v1/jobs/{first}").json()["state"] == "running")
        assert client.get(f"/api/v1/jobs/{second}").json()["queue_position"] == 1
        assert client.post(f"/api/v1/jobs/{second}/cancel").json()["state"] == "cancelled"
        client.post(f"/api/v1/jobs/{first}/cancel")
        assert ended(client, first, within_s=5)["state"] == "cancelled"


def test_a_new_server_adopts_a_living_job(fake: Served, model_file: Path, settings: Settings) -> None:
    with fake("hang,succeed") as client:
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id))
        pid = job_pid(job_id)
    assert psutil.Process(pid).is_running()
    with fake("hang,succeed") as client:
        assert client.get(f"/api/v1/jobs/{job_id}").json()["state"] == "running"
        assert job_pid(job_id) == pid
        os.kill(pid, signal.SIGKILL)
        job = ended(client, job_id)
        assert (job["state"], job["attempts"]) == ("succeeded", 2)


def test_a_new_server_resumes_a_job_that_died_meanwhile(fake: Served, model_file: Path, settings: Settings) -> None:
    with fake("family,succeed") as client:
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id))
        pid = job_pid(job_id)
        old = until(lambda: found if len(found := processes_of(job_id)) >= 3 else None)
    os.kill(pid, signal.SIGKILL)
    with fake("family,succeed") as client:
        job = ended(client, job_id)
        assert (job["state"], job["attempts"]) == ("succeeded", 2)
        assert not [process for process in old if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.local_engine
def test_a_job_yields_to_the_server(fake: Served, model_file: Path, settings: Settings) -> None:
    with fake("hang", job_niceness=7) as client:
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id))
        assert psutil.Process(job_pid(job_id)).nice() == min(19, psutil.Process().nice() + 7)
        assert session_niceness(job_pid(job_id)) in (7, None)
        client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert ended(client, job_id)["state"] == "cancelled"


@pytest.mark.local_engine
def test_a_recycled_pid_is_not_taken_for_the_job(fake: Served, model_file: Path, settings: Settings) -> None:
    with fake("succeed", max_parallel_jobs=0) as client:
        job_id = start(client, model_file)
        with services_of(client).database.write() as session:
            job = session.get(Job, job_id)
            assert job is not None
            # This test's own pid, with the start time of a process that is long gone.
            job.state, job.pid, job.pid_started_at, job.attempts = "running", os.getpid(), 1.0, 1
    with fake("succeed") as client:
        assert ended(client, job_id)["state"] == "succeeded"


def test_an_engine_of_no_jobs_starts_none_but_cancels(fake: Served, model_file: Path, settings: Settings) -> None:
    with fake("hang") as client:
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id))
    with fake("hang", max_parallel_jobs=0) as client:
        waiting = start(client, model_file, seed=7)
        client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert ended(client, job_id)["state"] == "cancelled"
        assert client.get(f"/api/v1/jobs/{waiting}").json()["state"] == "queued"
        assert processes_of(job_id) == []


@pytest.mark.local_engine
def test_a_job_whose_tuner_is_stopped_is_ended_and_resumed(fake: Served, model_file: Path) -> None:
    with fake("signal:SIGSTOP,succeed", heartbeat_timeout_s=8) as client:
        job_id = start(client, model_file)
        assert ended(client, job_id)["state"] == "succeeded"
        assert "it was silent for" in log_of(client, job_id)


def test_a_silent_job_is_ended_and_resumed(fake: Served, model_file: Path, settings: Settings) -> None:
    with fake("hang,succeed") as client:
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id))
        os.kill(job_pid(job_id), signal.SIGSTOP)
        with services_of(client).database.write() as session:
            job = session.get(Job, job_id)
            assert job is not None
            job.heartbeat_at = now() - timedelta(hours=1)
        assert ended(client, job_id)["state"] == "succeeded"
        assert "it was silent for 36" in log_of(client, job_id)
