"""A stranger's code that has taken over the compiler, in the real sandbox and on the real way of a job: every attempt
fails and is seen, only that job fails, and the next one is as if nothing had been."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import psutil
import pytest

from service.blobs.local import blob_path
from service.settings import GIB, Settings
from service.signing import public_key
from tests import models
from tests.service.conftest import Served, ended, start, until, upload
from tests.service.sandbox.hostile import MARK
from tests.service.test_engine import is_ready, log_of, processes_of
from tests.signed_in import TestClient
from tuner.sandbox.strength import strength

pytestmark = pytest.mark.skipif(not strength().is_enough, reason="this machine cannot confine processes")
_ATTEMPT = re.compile(r"^(?P<name>.+): (?P<told>refused: \w+|WORKED)$")


def lines_of(client: TestClient, job_id: str) -> list[str]:
    return [line["message"] for line in client.get(f"/api/v1/jobs/{job_id}/log?limit=1000").json()["items"]]


def attempts(client: TestClient, job_id: str) -> dict[str, str]:
    found = map(_ATTEMPT.match, lines_of(client, job_id))
    return {match["name"]: match["told"] for match in found if match}


def refused(client: TestClient, job_id: str) -> dict[str, int]:
    """How often which call was refused, as the job's log says at its end."""
    lines = [line for line in lines_of(client, job_id) if line.startswith("Refused by the sandbox: ")]
    if not lines:
        return {}
    (line,) = lines
    parts = [part.split() for part in line.partition(": ")[2].split(", ")]
    return {part[0]: int(part[1]) if len(part) > 1 else 1 for part in parts}


def code_of(job: dict[str, object]) -> object:
    assert isinstance(job["error"], dict), job
    return job["error"]["code"]


def test_nothing_of_others_is_read_or_written(
    fake: Served, settings: Settings, model_file: Path, tmp_path: Path, database_url: str
) -> None:
    with fake("succeed") as client:
        others = upload(client, models.write(models.convolutional(), tmp_path / "other.onnx"))
        ended(client, earlier := start(client, model_file))
        public_key(settings)
        database = Path(database_url.removeprefix("sqlite:///"))
        places = [database, settings.signing_key_path, blob_path(settings.blobs_dir, others), settings.job_log(earlier)]
        folders = [settings.data_dir, settings.blobs_dir, settings.jobs_dir, tmp_path, Path("/root"), Path("/home")]
        assert all(path.exists() for path in places)
        before = {path: path.stat().st_size for path in places[1:3]}
        everything = [*places, *(path for path in folders if path.exists()), Path("/etc/shadow"), Path("/etc/passwd")]
        attack(settings, f"read {' '.join(map(str, everything))}")
        job = ended(client, start(client, model_file, seed=1))
        attack(settings, None)
        assert code_of(job) == "build_failed"
        told = attempts(client, str(job["id"]))
        assert len(told) == 4 * len(everything) + 12
        assert [name for name, what in told.items() if what == "WORKED"] == []
        assert {path: path.stat().st_size for path in places[1:3]} == before
        assert ended(client, start(client, model_file, seed=2))["state"] == "succeeded"


def test_nothing_is_left_where_others_find_it(
    fake: Served, settings: Settings, model_file: Path, tmp_path: Path
) -> None:
    with fake("succeed") as client:
        folders = [settings.data_dir, settings.blobs_dir, settings.jobs_dir, tmp_path, Path("/tmp"), Path("/dev/shm")]
        attack(settings, f"plant {' '.join(str(path) for path in folders if path.exists())}")
        job = ended(client, start(client, model_file))
        told = attempts(client, str(job["id"]))
        assert len(told) >= 4 * 5 + 3
        assert [name for name, what in told.items() if what == "WORKED"] == []
        assert not any((path / "planted").exists() for path in folders)


def test_the_environment_tells_nothing(
    fake: Served, settings: Settings, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("TESSERA_TOKEN", "secret")
    with fake("hostile:environment") as client:
        job = ended(client, start(client, model_file))
        found = {line.partition(": ")[0]: line.partition(": ")[2] for line in lines_of(client, str(job["id"]))}
        names = set(found["environment"].split())
        assert {"HOME", "TMPDIR", "PATH", "TESSERA_JOB"} <= names
        assert {name for name in names if name.startswith(("AWS_", "TESSERA_"))} == {"TESSERA_JOB"}
        assert found["folder"] == "['zig']"
        assert int(found["descriptors"]) == 2  # the connection, and the folder that it just looked at


def test_there_is_no_network(fake: Served, settings: Settings, model_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, fake("succeed") as client:
        attack(settings, f"network {listener.getsockname()[1]}")
        job = ended(client, start(client, model_file))
        told = attempts(client, str(job["id"]))
        assert len(told) == 10
        assert [name for name, what in told.items() if what == "WORKED"] == []
        assert refused(client, str(job["id"])) == {"socket": 9, "io_uring_setup": 1}
        listener.settimeout(0.1)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_other_processes_are_out_of_reach(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed") as client:
        attack(settings, "processes")
        job = ended(client, start(client, model_file))
        assert code_of(job) == "build_failed"
        told = attempts(client, str(job["id"]))
        assert len(told) == 10
        assert [name for name, what in told.items() if what == "WORKED"] == []
        seen = {"ptrace": 2, "prlimit64": 1, "unshare": 1, "chroot": 1, "mount": 1}
        assert refused(client, str(job["id"])) == seen
        assert {f"the sandbox refused: {name}" for name in seen} <= set(
            settings.job_log(str(job["id"])).read_text().splitlines()
        )
        attack(settings, None)
        honest = ended(client, start(client, model_file, seed=1))
        assert (honest["state"], refused(client, str(honest["id"]))) == ("succeeded", {})


def test_a_fork_bomb_ends_at_a_limit(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed") as client:
        attack(settings, "bomb")
        job = ended(client, job_id := start(client, model_file))
        assert code_of(job) == "build_failed"
        (line,) = [line for line in lines_of(client, job_id) if line.startswith("bomb")]
        made = int(line.split()[1])
        assert 100 < made < 33_000
        assert line.endswith("EAGAIN")
        until(lambda: not processes_of(job_id))
        attack(settings, None)
        assert ended(client, start(client, model_file, seed=1))["state"] == "succeeded"


@pytest.mark.parametrize("how", ["crash", "cancel"])
def test_nothing_outlives_the_job(fake: Served, settings: Settings, model_file: Path, how: str) -> None:
    with fake("succeed", max_attempts_without_record=1) as client:
        attack(settings, f"outlive {how}")
        job_id = start(client, model_file)
        until(lambda: is_ready(settings, job_id) and orphans())
        if how == "cancel":
            client.post(f"/api/v1/jobs/{job_id}/cancel")
        assert ended(client, job_id)["state"] == ("failed" if how == "crash" else "cancelled")
        assert orphans() == []


def orphans() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if f"import time; time.sleep({MARK})" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


@pytest.mark.parametrize("how", ["named", "unnamed"])
def test_a_disk_is_not_filled(fake: Served, settings: Settings, model_file: Path, how: str) -> None:
    with fake("succeed", job_disk_bytes=GIB // 8) as client:
        attack(settings, f"disk {how}")
        job_id = start(client, model_file)
        assert code_of(ended(client, job_id)) == "job_limit_exceeded"
        until(lambda: not settings.work_dir(job_id).exists())
        attack(settings, None)
        assert ended(client, start(client, model_file, seed=1))["state"] == "succeeded"


def test_memory_has_a_limit(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed", job_memory_bytes=GIB // 2) as client:
        attack(settings, "memory")
        job = ended(client, start(client, model_file))
        assert code_of(job) == "out_of_memory"


def test_a_deep_tree_is_removed(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed") as client:
        attack(settings, "deep")
        job = ended(client, job_id := start(client, model_file))
        assert job["state"] == "failed"
        until(lambda: not settings.work_dir(job_id).exists())


def test_a_log_has_an_end(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed") as client:
        attack(settings, "talk")
        ended(client, job_id := start(client, model_file))
        assert settings.job_log(job_id).stat().st_size < 66 * 1024**2
        assert b"The log ends here" in settings.job_log(job_id).read_bytes()[-200_000:]


SAID = [
    "an_unknown_request",
    "no_request",
    "another's_records",
    "an_unknown_event",
    "a_wrong_event",
    "a_negative_latency",
    "a_record_of_nothing",
    "a_record_of_another_target",
    "too_many_records",
    "an_unknown_outcome",
    "nonsense",
    "too_much",
    "not_a_number",
]
BUNDLES = [
    "link",
    "outside",
    "pipe",
    "two_names",
    "missing",
    "nonsense",
    "other_target",
    "other_model",
    "other_files",
    "impossible",
    "member",
    "header",
]


@pytest.mark.slow
@pytest.mark.parametrize("attacks", [[f"say {each}" for each in SAID], [f"bundle {each}" for each in BUNDLES]])
def test_a_forgery_ends_the_job_and_no_other(
    fake: Served, settings: Settings, model_file: Path, attacks: list[str]
) -> None:
    with fake("succeed", job_disk_bytes=GIB // 16) as client:
        for number, which in enumerate(attacks):
            attack(settings, which)
            job = ended(client, job_id := start(client, model_file, seed=number))
            assert (job["state"], code_of(job), job["attempts"]) == ("failed", "forged_result", 1), which
            assert "forged_result" in log_of(client, job_id)
            assert client.get(f"/api/v1/jobs/{job_id}/artifacts").json()["items"] == []
        attack(settings, None)
        assert ended(client, start(client, model_file, seed=99))["state"] == "succeeded"
        assert client.get("/readyz").json()["status"] == "ok"


def test_what_cannot_be_confined_is_not_run_where_that_is_required(
    fake: Served, settings: Settings, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.sandbox.strength.landlock.abi", lambda: 0)
    with fake("succeed", sandbox="required") as client:
        job_id = start(client, model_file)
        told = until(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["waiting_for"])
        assert "files are not protected" in told
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "sandbox" in [check["name"] for check in ready.json()["checks"] if not check["ok"]]
        check = client.post(f"/api/v1/models/{upload(client, model_file)}/check", json={"target": "host"})
        assert (check.status_code, check.json()["code"]) == (503, "sandbox_unavailable")


def attack(settings: Settings, which: str | None) -> None:
    """What jobs do that start from now on."""
    (settings.data_dir / "behaviour").write_text(f"hostile:{which}" if which else "succeed")
