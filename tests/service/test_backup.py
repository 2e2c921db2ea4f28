"""What docs/operations.md says of backups, done as it says: back up, wipe, restore, and the job resumes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.settings import Settings
from tests.service.conftest import ROOT, Served, ended, start, until
from tests.service.postgresql import PostgresqlServer, text_of
from tests.service.test_engine import is_ready, job_pid
from tests.signed_in import TestClient


def commands(heading: str) -> str:
    """The shell commands below a heading of the page."""
    page = (ROOT / "docs" / "operations.md").read_text()
    found = re.search(rf"^## {heading}\n.*?```bash\n(.*?)```", page, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found.group(1)


def run(script: str, settings: Settings, backup: Path) -> str:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "BACKUP": str(backup),
        "TESSERA_DATA_DIR": str(settings.data_dir),
        "TESSERA_DATABASE_URL": settings.database_url or "",
    }
    done = subprocess.run(
        ["bash", "-euc", script], env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def bundle_of(client: TestClient, job_id: str) -> bytes:
    artifacts = client.get(f"/api/v1/jobs/{job_id}/artifacts").json()["items"]
    (bundle,) = [artifact for artifact in artifacts if artifact["kind"] == "bundle"]
    response = client.get(f"/api/v1/artifacts/{bundle['id']}")
    assert response.status_code == 200
    return response.content


def test_a_restored_backup_resumes_its_job(
    fake: Served, model_file: Path, settings: Settings, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    backup = tmp_path / "backup"
    with fake("succeed") as client:
        first = start(client, model_file)
        ended(client, first)
        bundle = bundle_of(client, first)
    with fake("hang") as client:
        running = start(client, model_file, seed=1)
        until(lambda: is_ready(settings, running))
        told = run(commands("Back up"), settings, backup)
        assert "2 jobs" in told
        process = psutil.Process(job_pid(running))
    process.kill()
    process.wait(10)

    shutil.rmtree(settings.data_dir)
    empty = f"sqlite:///{tmp_path / 'restored.sqlite3'}"
    if settings.database_url and settings.database_url.startswith("postgresql"):
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        empty = text_of(server.empty())
    restored = settings.model_copy(update={"database_url": empty})
    run(commands("Restore"), restored, backup)
    with fake("succeed", database_url=empty) as client:
        job = ended(client, running)
        assert (job["state"], job["attempts"]) == ("succeeded", 2)
        assert bundle_of(client, first) == bundle
        assert client.get("/api/v1/jobs").json()["items"][-1]["id"] == first
