"""What the doctor finds in an installation that is well, and in sick ones."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from service.checkup import Check, check_up, clean
from service.database import Database
from service.database.tables import Job, Workload
from service.database.upgrade import migrate
from service.errors import Conflict
from service.settings import Settings
from service.stores import DatabaseRecordStore
from tests.service.conftest import Served, ended, services_of, start, upload
from tests.service.tuning import record, workload


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


def find(settings: Settings, name: str) -> Check:
    (found,) = [check for check in check_up(settings) if check.name == name]
    return found


def test_a_new_machine_is_well(settings: Settings) -> None:
    checks = list(check_up(settings))
    assert all(check.ok for check in checks if check.name != "free memory")
    assert not settings.data_dir.exists()  # looking makes nothing


def test_a_used_installation_is_well(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed") as client:
        ended(client, start(client, model_file))
        assert find(settings, "jobs").detail == "0 running, 0 interrupted, 0 queued"
    assert find(settings, "database").ok
    assert "all there" in find(settings, "blobs").detail


def test_missing_blobs_are_named(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed") as client:
        job_id = start(client, model_file)
        ended(client, job_id)
        model_id = client.get(f"/api/v1/jobs/{job_id}").json()["model_id"]
        services_of(client).blobs.delete(model_id)
    found = find(settings, "blobs")
    assert (found.ok, found.detail) == (False, f"1 are missing: {model_id[:12]}")
    assert "backup" in found.hint


def test_a_database_that_names_no_blobs_deletes_none(fake: Served, settings: Settings) -> None:
    with fake("succeed") as client:
        blobs = services_of(client).blobs
        old = blobs.put_bytes(b"old")
        os.utime(blobs.path(old.sha256), (time.time() - 2 * 24 * 3600,) * 2)
    with pytest.raises(Conflict, match="names no blobs"):
        clean(settings)
    assert blobs.exists(old.sha256)


def test_what_nothing_names_is_deleted_on_request_but_nothing_young(
    fake: Served, settings: Settings, model_file: Path
) -> None:
    with fake("succeed") as client:
        upload(client, model_file)
        blobs = services_of(client).blobs
        old, young = blobs.put_bytes(b"old"), blobs.put_bytes(b"young")
        os.utime(blobs.path(old.sha256), (time.time() - 2 * 24 * 3600,) * 2)
    assert "1 blobs" in find(settings, "left over").detail
    assert clean(settings) == 1
    assert (blobs.exists(old.sha256), blobs.exists(young.sha256)) == (False, True)
    assert not [check for check in check_up(settings) if check.name == "left over"]


def test_interrupted_jobs_wait_for_a_server(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed", max_parallel_jobs=0) as client:
        start(client, model_file)
        running = start(client, model_file, seed=1)
        with services_of(client).database.write() as session:
            job = session.get(Job, running)
            assert job is not None
            job.state = "running"
    found = find(settings, "jobs")
    assert found.detail == "0 running, 1 interrupted, 1 queued"
    assert "tessera serve" in found.hint


def test_records_of_another_tvm_are_counted_and_explained(fake: Served, settings: Settings, model_file: Path) -> None:
    with fake("succeed") as client:
        job_id = start(client, model_file)
        ended(client, job_id)
        store = DatabaseRecordStore(services_of(client).database, job_id)
        store.add_workload(workload(1))
        store.add([record(9)])
        with services_of(client).database.write() as session:
            row = session.scalar(select(Workload).where(Workload.key == "workload-1"))
            assert row is not None
            row.tvm_version = "0.1.0"
    found = find(settings, "records")
    assert "of TVM 0.1.0" in found.detail
    assert "never replayed" in found.hint


def test_access_is_counted_and_what_nobody_uses_is_named(
    fake: Served, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake("succeed") as client:
        assert find(settings, "access").detail == "this machine's token only"
        for name, scope, life_s in (("ci", "submit", None), ("me", "admin", None), ("old", "read", 0.001)):
            body = {"name": name, "scope": scope, "expires_in_s": life_s}
            made = client.post("/api/v1/tokens", json=body).json()
            if name == "me":
                assert client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {made['token']}"}).is_success
        found = find(settings, "access")
        assert found.detail == "2 tokens beside this machine's: 1 submit, 1 admin; 1 never used; 1 expired"
        assert (found.ok, found.hint) == (True, "")
        monkeypatch.setattr("service.checkup._SOON_USED", timedelta(0))
        assert find(settings, "access").hint == "Nobody has used ci: tessera token revoke NAME"


def test_a_server_that_would_not_start_for_others_is_told(fake: Served, settings: Settings) -> None:
    with fake("succeed"):
        pass
    found = find(settings.model_copy(update={"host": "0.0.0.0"}), "access")
    assert not found.ok
    assert "tessera token create" in found.hint


def test_an_old_schema_says_how_to_upgrade(settings: Settings) -> None:
    settings.data_dir.mkdir()
    database = Database(settings.sqlalchemy_url)
    with database.change_schema() as connection:
        migrate(connection, "0003")
    database.close()
    found = find(settings, "database")
    assert not found.ok
    assert "tessera db upgrade" in found.hint


def test_a_database_that_is_away_is_told(settings: Settings) -> None:
    settings.data_dir.mkdir()
    away = settings.model_copy(update={"database_url": "postgresql://me:secret@127.0.0.1:1/x"})
    found = find(away, "database")
    assert not found.ok
    assert "secret" not in found.detail
