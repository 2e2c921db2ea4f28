"""What is outdated, deleting it, and the rule."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, update

from service.database.base import now
from service.database.tables import Artifact, CostModel, Job, Model, Samples, TrialRecord
from service.ids import new_id
from service.retention.cleaning import KEPT_VERSIONS, delete_outdated, find_outdated
from service.retention.keeper import RetentionKeeper
from service.retention.rule import get_retention_days, set_retention_days
from service.services import ProjectServices
from service.stores import JobReporter
from tests import models
from tests.acceptance import seed
from tests.service.conftest import upload
from tests.signed_in import TestClient

ORIGIN = {"origin": "http://localhost"}
OLD = timedelta(days=40)


def end(
    services: ProjectServices, model_id: str, *, days_ago: int, state: str = "succeeded", target: str = "host"
) -> str:
    """A job that ended so long ago, with a bundle of its own."""
    job_id = new_id()
    ended = now() - timedelta(days=days_ago)
    with services.database.write() as session:
        session.add(
            Job(
                id=job_id,
                model_id=model_id,
                target=target,
                target_fingerprint="f",
                target_spec={},
                state=state,
                created_at=ended,
                finished_at=ended if state != "running" else None,
            )
        )
        session.flush()
        blob = services.blobs.put_bytes(f"bundle of {job_id}".encode())
        session.add(
            Artifact(
                id=new_id(),
                job_id=job_id,
                kind="bundle",
                filename="m.tar.gz",
                content_type="application/gzip",
                size_bytes=blob.size_bytes,
                sha256=blob.sha256,
            )
        )
    return job_id


def age(services: ProjectServices) -> None:
    """All models, samples and cost models were stored 40 days ago."""
    with services.database.write() as session:
        for table in (Model, Samples, CostModel):
            session.execute(update(table).values(created_at=now() - OLD))


def kept_jobs(services: ProjectServices) -> set[str]:
    with services.database.read() as session:
        return set(session.scalars(select(Job.id)))


def test_old_jobs_go_and_the_newest_bundle_stays(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    model_id = upload(client, model_file)
    oldest = end(services, model_id, days_ago=60)
    elsewhere = end(services, model_id, days_ago=60, target="raspberry-pi-4")
    newest = end(services, model_id, days_ago=50)
    failed = end(services, model_id, days_ago=45, state="failed")
    recent = end(services, model_id, days_ago=5, state="cancelled")
    running = end(services, model_id, days_ago=90, state="running")
    found = find_outdated(services, 30)
    assert {job.id for job in found.jobs} == {oldest, failed}
    assert found.size_bytes == sum(job.size_bytes for job in found.jobs) > 0
    assert kept_jobs(services) == {oldest, elsewhere, newest, failed, recent, running}
    with services.database.read() as session:
        gone = session.scalars(select(Artifact.sha256).where(Artifact.job_id == oldest)).one()
    assert delete_outdated(services, 30) == found
    assert kept_jobs(services) == {elsewhere, newest, recent, running}
    assert not services.blobs.exists(gone)
    assert delete_outdated(services, 30).count == 0


def test_records_outlive_their_jobs(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    model_id = upload(client, model_file)
    job_id = end(services, model_id, days_ago=60, state="cancelled")
    seed.tune(services, job_id, JobReporter(services.database, job_id), trials=16, total=16)
    delete_outdated(services, 30)
    with services.database.read() as session:
        assert len(session.scalars(select(TrialRecord.id).where(TrialRecord.job_id.is_(None))).all()) == 16


def test_files_that_no_job_uses_go_with_the_last_job(
    client: TestClient, services: ProjectServices, tmp_path: Path
) -> None:
    used, unused = (
        upload(client, models.write(model, tmp_path / name))
        for model, name in ((models.convolutional(), "used.onnx"), (models.perceptron(), "unused.onnx"))
    )
    np.savez(tmp_path / "x.npz", image=np.zeros(3, np.float32))
    sent = client.post("/api/v1/samples?filename=x.npz", content=(tmp_path / "x.npz").read_bytes())
    assert sent.status_code == 201
    end(services, used, days_ago=60, state="failed")
    assert {each.id for each in find_outdated(services, 30).models} == set(), "they were uploaded today"
    age(services)
    found = find_outdated(services, 30)
    assert {each.id for each in found.models} == {used, unused}
    assert [each.name for each in found.samples] == ["x.npz"]
    recent = end(services, used, days_ago=1, state="failed")
    delete_outdated(services, 30)
    assert kept_jobs(services) == {recent}
    assert [each["id"] for each in client.get("/api/v1/models").json()["items"]] == [used]
    assert not services.blobs.exists(unused)
    assert services.blobs.exists(used)


def test_the_newest_versions_of_a_cost_model_stay(services: ProjectServices) -> None:
    seed.add_cost_models(services)
    age(services)
    with services.database.read() as session:
        versions = sorted(session.scalars(select(CostModel.version)))
    found = find_outdated(services, 30)
    assert [each.version for each in found.cost_models] == versions[:-KEPT_VERSIONS] != []
    delete_outdated(services, 30)
    with services.database.read() as session:
        assert sorted(session.scalars(select(CostModel.version))) == versions[-KEPT_VERSIONS:]
        for model in session.scalars(select(CostModel)):
            assert services.blobs.exists(model.model_sha256)


def test_the_rule_is_kept_by_the_server(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    job_id = end(services, upload(client, model_file), days_ago=60, state="failed")
    keeper = RetentionKeeper(services)
    keeper.keep()
    assert kept_jobs(services) == {job_id}
    set_retention_days(services.database, 61)
    keeper.keep()
    assert kept_jobs(services) == {job_id}
    set_retention_days(services.database, 30)
    assert get_retention_days(services.database) == 30
    keeper.keep()
    assert kept_jobs(services) == set()
    set_retention_days(services.database, None)
    assert get_retention_days(services.database) is None


@pytest.mark.parametrize("days", [0, -3, 10**6])
def test_days_that_are_none(client: TestClient, days: int) -> None:
    for answer in (
        client.put("/api/v1/storage/retention", json={"days": days}),
        client.post("/api/v1/storage/clean-up", json={"days": days}),
    ):
        assert answer.status_code == 422
        assert answer.json()["code"] == "invalid_retention"


def test_over_rest(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    job_id = end(services, upload(client, model_file), days_ago=60, state="failed")
    looked = client.post("/api/v1/storage/clean-up", json={"days": 30, "dry_run": True}).json()
    assert ([job["id"] for job in looked["jobs"]], looked["deleted"]) == ([job_id], False)
    assert kept_jobs(services) == {job_id}
    assert client.put("/api/v1/storage/retention", json={"days": 30}).json()["retention_days"] == 30
    done = client.post("/api/v1/storage/clean-up", json={"days": 30}).json()
    assert {**done, "deleted": False} == looked
    assert kept_jobs(services) == set()
    storage = client.get("/api/v1/storage").json()
    assert {each["name"]: each["count"] for each in storage["kept"]}["Jobs"] == 0
    assert client.put("/api/v1/storage/retention", json={"days": None}).json()["retention_days"] is None


def test_on_the_settings_page(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    job_id = end(services, upload(client, model_file), days_ago=60, state="failed")
    assert "everything is kept" in client.get("/settings").text
    looked = client.get("/settings?days=30").text
    assert f'href="/jobs/{job_id}"' in looked
    assert "<strong>1 job, " in looked
    assert "Nothing is outdated after 70 days." in client.get("/settings?days=70").text
    kept = client.post("/settings/retention", data={"days": "70"}, headers=ORIGIN, follow_redirects=False)
    assert kept.status_code == 303
    assert "what ended more than 70 days ago is deleted" in client.get("/settings").text
    cleaned = client.post("/settings/clean-up", data={"days": "30"}, headers=ORIGIN)
    assert "1 job deleted." in cleaned.text
    assert kept_jobs(services) == set()
    client.post("/settings/retention", data={"days": ""}, headers=ORIGIN)
    assert "everything is kept" in client.get("/settings").text
    for path in ("/settings?days=never", "/settings?days=0"):
        assert client.get(path).status_code == 422
        assert "invalid_retention" in client.get(path).text
