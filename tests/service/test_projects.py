"""Projects: the same thing in two of them, what a job starts from, whose turn it is, and how much each may have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service import job_process
from service.access.scopes import AccessScope
from service.app import create_app
from service.checkup import check_up
from service.database.tables import AccessToken
from service.errors import StorageUnavailable
from service.job_host.host import JobHost
from service.jobs import queue
from service.queries.projects import list_projects
from service.retention.keeper import RetentionKeeper
from service.retention.rule import set_retention_days
from service.schemas.webhooks import WebhookCreate
from service.services import ProjectServices
from service.settings import Settings
from service.stores import DatabaseCostModelStore, DatabaseRecordStore
from service.webhooks import commands as webhooks
from service.webhooks.addresses import Reach
from service.webhooks.sender import WebhookSender
from tests import models
from tests.service.access.conftest import HTML, header_of
from tests.service.conftest import services_of
from tests.service.test_retention import age
from tests.service.test_webhooks import receiving
from tests.service.trials import record, workload
from tests.service.tuning import claimed
from tests.service.versions import stored
from tests.signed_in import TestClient
from tuner.errors import TesseraError
from tuner.targets import host_target


def send(client: TestClient, path: Path, header: dict[str, str]) -> tuple[int, str]:
    answer = client.post(f"/api/v1/models?filename={path.name}", content=path.read_bytes(), headers=header)
    return answer.status_code, answer.json()["id"]


def start(client: TestClient, path: Path, header: dict[str, str], **body: object) -> str:
    _, model_id = send(client, path, header)
    answer = client.post("/api/v1/jobs", json={"model_id": model_id, "trials": 8, **body}, headers=header)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def test_the_same_model_in_two_projects_is_two_models(client: TestClient, model_file: Path) -> None:
    ours, theirs = (header_of(client, project) for project in ("ours", "theirs"))
    made, model_id = send(client, model_file, ours)
    assert (made, send(client, model_file, ours)) == (201, (200, model_id))
    assert client.get(f"/api/v1/models/{model_id}", headers=theirs).status_code == 404
    assert send(client, model_file, theirs) == (201, model_id)
    job_id = start(client, model_file, theirs)
    assert client.get(f"/api/v1/models/{model_id}", headers=ours).json()["job_count"] == 0
    # Whoever deletes theirs takes the other's from nobody; the last one takes the file along.
    assert client.delete(f"/api/v1/models/{model_id}", headers=ours).status_code == 204
    content = client.get(f"/api/v1/models/{model_id}/content", headers=theirs)
    assert content.content == model_file.read_bytes()
    client.post(f"/api/v1/jobs/{job_id}/cancel", headers=theirs)
    assert client.delete(f"/api/v1/jobs/{job_id}", headers=theirs).status_code == 204
    assert [item.sha256 for item in services_of(client).blobs.items()] == [model_id]
    assert client.delete(f"/api/v1/models/{model_id}", headers=theirs).status_code == 204
    assert list(services_of(client).blobs.items()) == []


def test_a_key_of_one_project_is_none_of_the_other(client: TestClient, model_file: Path) -> None:
    ours, theirs = ({**header_of(client, name), "Idempotency-Key": "k"} for name in ("ours", "theirs"))
    first = start(client, model_file, ours)
    assert start(client, model_file, theirs) != first
    assert start(client, model_file, ours) == first


def measured(services: ProjectServices, job_id: str) -> None:
    """A record and a cost model of this machine."""
    store = DatabaseRecordStore(services.database, job_id)
    store.add_workload(workload(1))
    store.add([record(1, target_fingerprint=host_target().fingerprint)])
    DatabaseCostModelStore(services.database, services.blobs).save(stored(services.project.encode(), samples=100))


def test_a_job_starts_from_what_its_own_project_measured(
    client: TestClient, settings: Settings, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its confined process may be somebody else's by then: what it is handed is the project's own."""
    job_ids = {name: start(client, model_file, header_of(client, name)) for name in ("theirs", "ours")}
    assert [claimed(services_of(client).database.whole) for _ in job_ids] == list(job_ids.values())
    measured(services_of(client, "theirs"), job_ids["theirs"])
    hosts: list[JobHost] = []

    def run_confined(settings: object, job_id: str, request: object, host: JobHost, **_: object) -> None:
        hosts.append(host)
        raise TesseraError("that is all")

    monkeypatch.setattr(job_process, "run_confined", run_confined)
    whole = services_of(client).database.whole
    fingerprint = host_target().fingerprint
    for job_id in job_ids.values():
        assert job_process.run(settings, whole, job_id, attempt=1) == 0
    theirs, ours = hosts
    for host, known in ((theirs, 1), (ours, 0)):
        assert len(host.store.seen("workload-1", target_fingerprint=fingerprint)) == known
        wanted: dict[str, Any] = {"target_fingerprint": fingerprint, "features_version": 1, "limit": 10}
        assert len(host.store.training_set(**wanted)) == known
        assert (host.models.load(fingerprint) is not None) is bool(known)
    # What it forges under the name of a known workload is in its own project alone.
    ours.store.add_workload(replace(workload(1), name="forged", module_json="{}"))
    exported = client.get("/api/v1/records", headers=header_of(client, "theirs")).text
    assert "forged" not in exported
    assert "dense_1" in exported
    assert client.get("/api/v1/records", headers=header_of(client, "ours")).text == ""


def test_a_job_that_cannot_reach_its_blobs_waits_for_them(
    client: TestClient, settings: Settings, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = start(client, model_file, header_of(client, "default"))
    whole = services_of(client).database.whole
    assert claimed(whole) == job_id

    def run_confined(*_: object, **__: object) -> None:
        raise StorageUnavailable("The bucket s3://b cannot be used: it does not answer")

    monkeypatch.setattr(job_process, "run_confined", run_confined)
    assert job_process.run(settings, whole, job_id, attempt=1) == 0
    job = client.get(f"/api/v1/jobs/{job_id}").json()
    assert (job["state"], job["error"]) == ("queued", None)
    log = client.get(f"/api/v1/jobs/{job_id}/log").json()["items"]
    assert any("it does not answer" in line["message"] and "waits for it" in line["message"] for line in log)


def test_users_take_turns(client: TestClient, model_file: Path) -> None:
    ann, ben, eve = header_of(client, "ours"), header_of(client, "ours"), header_of(client, "theirs")
    jobs = {
        name: start(client, model_file, header, seed=seed)
        for seed, (name, header) in enumerate(
            [("ann 1", ann), ("ann 2", ann), ("ann 3", ann), ("ben 1", ben), ("eve 1", eve), ("eve 2", eve)]
        )
    }
    owners = {"ann": ann, "ben": ben, "eve": eve}
    expected = ["ann 1", "ben 1", "eve 1", "ann 2", "eve 2", "ann 3"]
    while expected:
        for name, job_id in jobs.items():
            shown = client.get(f"/api/v1/jobs/{job_id}", headers=owners[name[:3]]).json()["queue_position"]
            assert shown == (expected.index(name) + 1 if name in expected else None), name
        listed = client.get("/api/v1/jobs?state=queued", headers=ann).json()["items"]
        assert {each["queue_position"] for each in listed} == {
            place for place, name in enumerate(expected, start=1) if name[:3] in ("ann", "ben")
        }
        assert claimed(services_of(client).database.whole) == jobs[expected.pop(0)]


def test_what_a_target_waits_for_is_of_its_own_project(client: TestClient, model_file: Path) -> None:
    job_ids = {name: start(client, model_file, header_of(client, name)) for name in ("ours", "theirs")}
    whole = services_of(client).database.whole
    assert queue.measured_targets(whole).keys() == {("ours", "host"), ("theirs", "host")}
    claim = queue.claim_next(whole, waiting={("ours", "host"): "a board"})
    assert claim is not None
    assert claim.job_id == job_ids["theirs"]
    assert queue.claim_next(whole, waiting={("ours", "host"): "a board"}) is None
    shown = client.get(f"/api/v1/jobs/{job_ids['ours']}", headers=header_of(client, "ours")).json()
    assert (shown["state"], shown["waiting_for"]) == ("queued", "a board")
    assert claimed(whole) == job_ids["ours"]


def test_one_user_may_have_so_many_unfinished_jobs(settings: Settings, model_file: Path) -> None:
    with TestClient(create_app(settings.model_copy(update={"max_jobs_per_user": 2}), engine=False)) as client:
        ann, ben = header_of(client, "ours"), header_of(client, "ours")
        first = start(client, model_file, {**ann, "Idempotency-Key": "k"})
        start(client, model_file, ann, seed=1)
        assert claimed(services_of(client).database.whole) == first
        _, model_id = send(client, model_file, ann)
        body = {"model_id": model_id, "trials": 8}
        refused = client.post("/api/v1/jobs", json={**body, "seed": 2}, headers=ann)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_jobs")
        assert "TESSERA_MAX_JOBS_PER_USER" in refused.json()["hint"]
        form = {"action": "start", "target": "host", "also": ["host"], "trials": "8"}
        page = client.post(f"/new/{model_id}", data=form, headers={**ann, **HTML})
        assert page.status_code == 429
        assert "too_many_jobs" in page.text
        # The others have theirs; what is there already is no new one; what has ended takes no place.
        assert start(client, model_file, ben)
        assert start(client, model_file, {**ann, "Idempotency-Key": "k"}) == first
        assert client.get(f"/api/v1/jobs/{first}", headers=ben).json()["submitted_by"].startswith("ours admin")
        queue.request_cancel(services_of(client, "ours").database, first)
        queue.finish(services_of(client, "ours").database, first, queue.JobState.CANCELLED)
        assert start(client, model_file, ann, seed=2)


def test_one_project_may_store_so_much(settings: Settings, model_file: Path, tmp_path: Path) -> None:
    other = models.write(models.convolutional(), tmp_path / "other.onnx")
    most_bytes = other.stat().st_size + model_file.stat().st_size - 1
    with TestClient(create_app(settings.model_copy(update={"max_project_bytes": most_bytes}), engine=False)) as client:
        ours, theirs = (header_of(client, project) for project in ("ours", "theirs"))
        _, model_id = send(client, model_file, ours)
        refused = client.post("/api/v1/models", content=other.read_bytes(), headers=ours)
        assert (refused.status_code, refused.json()["code"]) == (507, "project_full")
        assert refused.json()["details"] == {"stored_bytes": model_file.stat().st_size, "max_bytes": most_bytes}
        assert [item.sha256 for item in services_of(client).blobs.items()] == [model_id]
        assert send(client, model_file, ours) == (200, model_id)
        assert send(client, other, theirs)[0] == 201
        assert client.delete(f"/api/v1/models/{model_id}", headers=ours).status_code == 204
        assert send(client, other, ours)[0] == 201


def test_webhooks_are_told_of_their_own_projects_jobs(client: TestClient, model_file: Path) -> None:
    with receiving() as ours, receiving() as theirs:
        for name, receiver in (("ours", ours), ("theirs", theirs)):
            services = services_of(client, name)
            webhooks.create_webhook(services.database, WebhookCreate(url=receiver.url), reach=Reach(services.settings))
        job_id = start(client, model_file, header_of(client, "ours"))
        queue.request_cancel(services_of(client).database.whole, job_id)
        services = services_of(client)
        assert WebhookSender(services.database.whole, Reach(services.settings)).send_due() == 1
        assert [told["job"]["id"] for told, _, _ in ours.got] == [job_id]
        assert theirs.got == []


def test_the_rule_of_retention_is_of_all_projects_and_a_clean_up_of_one(client: TestClient, model_file: Path) -> None:
    headers = {name: header_of(client, name) for name in ("ours", "theirs")}

    def kept() -> list[int]:
        return [len(client.get("/api/v1/models", headers=header).json()["items"]) for header in headers.values()]

    for name, header in headers.items():
        send(client, model_file, header)
        age(services_of(client, name))
    report = client.post("/api/v1/storage/clean-up", json={"days": 30}, headers=headers["ours"]).json()
    assert (len(report["models"]), kept()) == (1, [0, 1])
    send(client, model_file, headers["ours"])
    age(services_of(client, "ours"))
    set_retention_days(services_of(client).database, 30)
    RetentionKeeper(client.app.state.services).keep()  # type: ignore[attr-defined]
    assert kept() == [0, 0]


def test_figures_are_of_the_project_and_for_the_server_of_all(client: TestClient, model_file: Path) -> None:
    send(client, model_file, header_of(client, "ours"))
    for project, scope, models_told in (
        ("ours", AccessScope.READ, 1),
        ("theirs", AccessScope.READ, 0),
        ("theirs", AccessScope.ADMIN, 1),
    ):
        text = client.get("/metrics", headers=header_of(client, project, scope)).text
        assert f"tessera_models {models_told}.0" in text
    kept = client.get("/api/v1/storage", headers=header_of(client, "theirs")).json()["kept"]
    assert {each["count"] for each in kept} == {0}


def test_a_device_is_everybodys_and_its_job_is_not(client: TestClient, model_file: Path) -> None:
    job_id = start(client, model_file, header_of(client, "ours"))
    start(client, model_file, header_of(client, "ours"), seed=1)
    assert claimed(services_of(client).database.whole) == job_id
    for project, told in (("ours", ("measuring", job_id, 1)), ("theirs", ("measuring", None, 0))):
        (device,) = client.get("/api/v1/devices", headers=header_of(client, project)).json()["items"]
        assert (device["state"], device["running_job_id"], device["waiting_jobs"]) == told


def test_who_works_in_a_project_is_told_which_one(client: TestClient) -> None:
    assert 'id="project"' not in client.get("/", headers=HTML).text
    assert "Project</th>" not in client.get("/settings", headers=HTML).text
    assert (
        '<span class="small muted" id="project"' in client.get("/", headers={**HTML, **header_of(client, "ours")}).text
    )
    assert 'id="project"' not in client.get("/", headers=HTML).text
    assert '<th scope="col">Project</th>' in client.get("/settings", headers=HTML).text


def test_tokens_are_made_for_the_own_project_or_another(client: TestClient) -> None:
    ours = header_of(client, "ours")
    own = client.post("/api/v1/tokens", json={"name": "a", "scope": "read"}, headers=ours).json()
    other = client.post("/api/v1/tokens", json={"name": "b", "scope": "read", "project": "theirs"}, headers=ours).json()
    assert (own["project"], other["project"]) == ("ours", "theirs")
    for wrong in ("", "Vision", "a b", "x" * 41, "ü"):
        refused = client.post("/api/v1/tokens", json={"name": "c", "scope": "read", "project": wrong})
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_request"), wrong
    form = {"name": "d", "scope": "read", "project": "vision-2"}
    assert "The token d" in client.post("/settings/tokens", data=form, headers=HTML).text
    assert client.post("/settings/tokens", data={**form, "name": "e", "project": "V"}, headers=HTML).status_code == 422
    known = {each["name"]: each["project"] for each in client.get("/api/v1/tokens").json()["items"]}
    assert (known["local"], known["d"]) == ("default", "vision-2")
    assert "e" not in known


def test_the_doctor_names_the_projects_where_there_are_several(client: TestClient, settings: Settings) -> None:
    assert "projects" not in {check.name for check in check_up(settings)}
    header_of(client, "ours")
    assert {check.name: check.detail for check in check_up(settings)}["projects"] == "default, ours"
    with services_of(client).database.write() as session:
        session.query(AccessToken).delete()
    assert list_projects(services_of(client).database.whole) == []


def test_the_command_makes_tokens_of_projects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from service.cli import main

    folder = ["--data-dir", str(tmp_path / "data")]

    def run(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *folder])
        told = capsys.readouterr()
        return f"{ended.value.code} {told.out}{told.err}"

    assert "project" not in run("token", "list")
    made = json.loads(run("token", "create", "ann", "--project", "vision", "--json").removeprefix("0 "))
    assert (made["project"], made["scope"]) == ("vision", "read")
    assert "vision" in run("token", "list")
    assert run("token", "create", "ben", "--project", "No Name").startswith("2 ")
