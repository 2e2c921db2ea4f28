"""A real disk that runs full under a server and its job."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.settings import Settings
from tests.service.conftest import Served, ended, start, until, upload
from tests.service.test_disk_guard import hurry, put_back
from tests.service.test_engine import processes_of

MIB = 1024**2

pytestmark = pytest.mark.mount


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A data directory on a disk of its own, of 32 MiB."""
    as_root = [] if os.geteuid() == 0 else ["sudo", "--non-interactive"]
    if as_root and shutil.which(as_root[0]) is None:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [*as_root, "mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield Settings(data_dir=disk / "data", min_free_disk_bytes=8 * MIB)
    subprocess.run([*as_root, "umount", "--lazy", str(disk)], check=True)


def test_a_job_on_a_full_disk_resumes_when_there_is_space(fake: Served, model_file: Path, settings: Settings) -> None:
    filler = settings.data_dir / "filler"
    with fake("record+fill,succeed", sandbox="off") as client:
        job_id = start(client, model_file)
        until(filler.exists)
        until(lambda: not processes_of(job_id))
        refused = client.post("/api/v1/models?filename=m.onnx", content=model_file.read_bytes())
        assert (refused.status_code, refused.json()["code"]) == (507, "storage_full")
        os.truncate(filler, filler.stat().st_size - MIB)
        assert put_back(client, job_id)["error"] is None
        told = until(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["waiting_for"])
        assert "8 MiB are needed" in told
        assert client.get("/readyz").status_code == 503
        filler.unlink()
        hurry(client, job_id)
        job = ended(client, job_id)
        assert (job["state"], job["attempts"]) == ("succeeded", 2)
        trials = client.get(f"/api/v1/jobs/{job_id}/trials").json()["items"]
        assert [trial["number"] for trial in trials] == [1, 2, 3, 4]
        assert upload(client, model_file)


def test_a_database_without_space_refuses_changes_and_loses_nothing(
    fake: Served, model_file: Path, settings: Settings
) -> None:
    filler = settings.data_dir / "filler"
    with fake("succeed", max_parallel_jobs=0) as client:
        model_id = upload(client, model_file)
        with pytest.raises(OSError, match="No space left"):
            filler.write_bytes(bytes(64 * MIB))
        made = 0
        while True:
            answer = client.post("/api/v1/jobs", json={"model_id": model_id, "trials": 8, "seed": made})
            if answer.status_code != 201:
                break
            made += 1  # the write-ahead log has room for some
        assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
        assert len(client.get("/api/v1/jobs?limit=1000").json()["items"]) == made
        filler.unlink()
        assert client.post("/api/v1/jobs", json={"model_id": model_id, "trials": 8}).status_code == 201
        assert len(client.get("/api/v1/jobs?limit=1000").json()["items"]) == made + 1
