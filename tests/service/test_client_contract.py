"""The client and the OpenAPI document: a method for every operation, and nothing on the wire that is not documented."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import numpy as np
import pytest

from service.access.principal import DEFAULT_PROJECT
from service.access.scopes import AccessScope
from service.blobs import BlobStore
from service.client import AsyncClient, Client
from service.database import Database
from service.schemas.access import TokenCreate
from service.schemas.artifacts import ArtifactSchema
from service.schemas.jobs import JobCreate, JobSchema
from service.schemas.models import ModelSchema
from service.schemas.targets import TargetCreate
from service.settings import Settings
from service.stores import DatabaseCostModelStore
from tests import models
from tests.service.conftest import until
from tests.service.contract import API, Operation, faults, operation_of, operations
from tests.service.test_client import run_apart, serving
from tests.service.tuning import record, workload
from tests.service.versions import FINGERPRINT, POINTS, stored
from tests.signed_in import token_of


@dataclass
class World:
    """What the calls are about: a server on which something of everything is there."""

    url: str
    folder: Path
    model: ModelSchema
    spare_model: ModelSchema
    job: JobSchema
    spare_job: JobSchema
    running_job: JobSchema
    artifact: ArtifactSchema
    webhook: str
    spare_webhook: str
    model_file: Path
    samples_file: Path
    records_file: Path
    target: TargetCreate = field(
        default_factory=lambda: TargetCreate(
            name="host-1t", tvm={"kind": "llvm", "mcpu": "x86-64-v3"}, triple="x86_64-linux-gnu", threads=1
        )
    )


@dataclass(frozen=True, eq=False)
class Call:
    """One call of the client, and the operation that it is."""

    operation: str
    method: str
    arguments: Callable[[World], tuple[Any, ...]] = lambda _: ()
    options: dict[str, Any] = field(default_factory=dict)


CALLS = (
    Call("upload_model", "upload_model", lambda w: (w.model_file,)),
    Call("upload_samples", "upload_samples", lambda w: (w.samples_file,)),
    Call("list_models", "models", options={"limit": 5}),
    Call("get_model", "model", lambda w: (w.model.id,)),
    Call("download_model", "download_model", lambda w: (w.model, w.folder)),
    Call("delete_model", "delete_model", lambda w: (w.spare_model.id,)),
    Call("check_model", "check", lambda w: (w.model.id,), {"target": "host"}),
    Call("create_job", "create_job", lambda w: (JobCreate(model_id=w.model.id, trials=8),), {"idempotency_key": "k"}),
    Call("list_jobs", "jobs", options={"limit": 5}),
    Call("get_job", "job", lambda w: (w.job.id,)),
    Call("cancel_job", "cancel", lambda w: (w.running_job.id,)),
    Call("delete_job", "delete_job", lambda w: (w.spare_job.id,)),
    Call("list_tasks", "tasks", lambda w: (w.job.id,)),
    Call("list_trials", "trials", lambda w: (w.job.id,), {"limit": 100}),
    Call("get_log", "log", lambda w: (w.job.id,)),
    Call("get_log", "log_text", lambda w: (w.job.id,)),
    Call("stream_events", "events", lambda w: (w.job.id,), {"after": 1}),
    Call("list_artifacts", "artifacts", lambda w: (w.job.id,)),
    Call("get_front", "front", lambda w: (w.job.id,)),
    Call("get_artifact", "artifact", lambda w: (w.artifact.id,)),
    Call("download_artifact", "download", lambda w: (w.artifact, w.folder)),
    Call("get_signing_key", "signing_key"),
    Call("list_targets", "targets"),
    Call("get_target", "target", lambda _: ("host",)),
    Call("create_target", "create_target", lambda w: (w.target,)),
    Call("list_devices", "devices"),
    Call("export_records", "export_records", options={"target": "host"}),
    Call("import_records", "import_records", lambda w: (w.records_file,), {"target": "host"}),
    Call("list_cost_models", "cost_models"),
    Call("get_cost_model", "cost_model", lambda _: ("host",)),
    Call("restore_cost_model", "restore_cost_model", lambda _: ("host", 1)),
    Call("create_webhook", "create_webhook", lambda _: ("http://127.0.0.1:9/hook",)),
    Call("list_webhooks", "webhooks"),
    Call("delete_webhook", "delete_webhook", lambda w: (w.spare_webhook,)),
    Call("try_webhook", "try_webhook", lambda w: (w.webhook,)),
    Call("list_deliveries", "deliveries", lambda w: (w.webhook,)),
    Call("get_storage", "storage"),
    Call("set_retention", "set_retention", lambda _: (90,)),
    Call("clean_up_storage", "clean_up", options={"days": 30, "dry_run": True}),
    Call(
        "create_token", "create_token", lambda _: (TokenCreate(name="ci", scope=AccessScope.SUBMIT, expires_in_s=60),)
    ),
    Call("list_tokens", "tokens"),
    Call("revoke_token", "revoke_token", lambda _: ("ci",)),
    Call("create_sign_in_link", "create_sign_in_link"),
    Call("list_audit", "audit", options={"limit": 5}),
)
IN_THE_DOCUMENT = tuple(each for each in operations() if each.path.startswith(API))


@dataclass(frozen=True)
class Exchange:
    """A request and its answer, as they were on the wire; ``sent`` is None for a stream."""

    method: str
    path: str
    query: dict[str, list[str]]
    sent_type: str
    sent: bytes | None
    status: int
    answered_type: str
    answered: bytes


Heard = dict[Call, list[Exchange]]


def test_every_operation_has_a_method_and_every_method_an_operation() -> None:
    assert {call.operation for call in CALLS} == {each.id for each in IN_THE_DOCUMENT}
    for twin in (Client, AsyncClient):
        public = {name for name in dir(twin) if not name.startswith("_")} - {"close"}
        assert public == {call.method for call in CALLS}, twin.__name__


@pytest.fixture(scope="module", params=["sync", "async"])
def exchanges(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Heard]:
    """What went over the wire in each call, of the client and of its twin."""
    folder = tmp_path_factory.mktemp("contract")
    with pytest.MonkeyPatch.context() as patch:
        settings = Settings(data_dir=folder / "data")
        patch.setenv("FAKE_JOB", "succeed")
        with serving(settings) as url, Client(url, token=token_of(url)) as client:
            world = arrange(client, settings, folder, patch)
            heard: list[Exchange] = []
            client._http.event_hooks = {"response": [lambda response: heard.append(exchange(response))]}
            yield perform(client, world, heard) if request.param == "sync" else perform_async(client, world, heard)


def arrange(client: Client, settings: Settings, folder: Path, patch: pytest.MonkeyPatch) -> World:
    model_file = models.write(models.perceptron(), folder / "perceptron.onnx")
    model = client.upload_model(model_file)
    spare_model = client.upload_model(models.write(models.convolutional(), folder / "spare.onnx"))
    store(settings)
    records_file = folder / "records.ndjson"
    lines = [
        {"kind": "workload", **asdict(workload(1))},
        {"kind": "record", **asdict(record(1, target_fingerprint=FINGERPRINT))},
    ]
    records_file.write_text("\n".join(map(json.dumps, lines)))
    client.import_records(records_file)
    samples_file = folder / "samples.npz"
    np.savez(samples_file, x=np.zeros((2, 4, 32), "float32"))
    jobs = [client.create_job(JobCreate(model_id=model.id, trials=8)) for _ in range(2)]
    for job in jobs:
        until(lambda job=job: client.job(job.id).state == "succeeded", within_s=60)
    patch.setenv("FAKE_JOB", "hang")
    running = client.create_job(JobCreate(model_id=model.id, trials=8))
    until(lambda: client.job(running.id).stage == "import", within_s=60)
    patch.setenv("FAKE_JOB", "succeed")
    return World(
        url=client.url,
        folder=folder / "downloads",
        model=model,
        spare_model=spare_model,
        job=client.job(jobs[0].id),
        spare_job=jobs[1],
        running_job=running,
        artifact=client.artifacts(jobs[0].id)[0],
        webhook=client.create_webhook("http://127.0.0.1:9/hook").id,
        spare_webhook=client.create_webhook("http://127.0.0.1:9/other").id,
        model_file=model_file,
        samples_file=samples_file,
        records_file=records_file,
    )


def store(settings: Settings) -> None:
    """Two versions of this machine's cost model."""
    database = Database(settings.sqlalchemy_url)
    kept = DatabaseCostModelStore(database.of_project(DEFAULT_PROJECT), BlobStore(settings.blobs_dir))
    kept.save(stored(b"first", samples=100))
    kept.save(stored(b"second", samples=200, held_out=POINTS))
    database.close()


def exchange(response: httpx2.Response) -> Exchange:
    request = response.request
    try:
        sent: bytes | None = request.content
    except httpx2.RequestNotRead:
        sent = None
    parts = urlsplit(str(request.url))
    return Exchange(
        method=request.method,
        path=parts.path,
        query=parse_qs(parts.query),
        sent_type=request.headers.get("content-type", "").partition(";")[0],
        sent=sent,
        status=response.status_code,
        answered_type=response.headers.get("content-type", "").partition(";")[0],
        answered=response.read(),
    )


def perform(client: Client, world: World, heard: list[Exchange]) -> Heard:
    done = {}
    for call in CALLS:
        result = getattr(client, call.method)(*call.arguments(world), **call.options)
        if inspect.isgenerator(result):
            assert list(result), call.method
        done[call] = heard.copy()
        heard.clear()
    return done


def perform_async(client: Client, world: World, heard: list[Exchange]) -> Heard:
    twin = AsyncClient(client)

    async def run() -> Heard:
        done = {}
        for call in CALLS:
            result = getattr(twin, call.method)(*call.arguments(world), **call.options)
            if inspect.isasyncgen(result):
                assert [item async for item in result], call.method
            else:
                await result
            done[call] = heard.copy()
            heard.clear()
        return done

    return run_apart(run)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.method)
def test_what_goes_over_the_wire_is_documented(call: Call, exchanges: Heard) -> None:
    (seen,) = exchanges[call]
    operation = operation_of(seen.method, seen.path)
    assert operation is not None
    assert operation.id == call.operation
    check_request(operation, seen)
    check_answer(operation, seen)


def check_request(operation: Operation, seen: Exchange) -> None:
    parameters = {each["name"]: each for each in operation.described.get("parameters", []) if each["in"] == "query"}
    assert seen.query.keys() <= parameters.keys()
    body = operation.described.get("requestBody")
    if body is None:
        assert not seen.sent
        return
    schema = body["content"][seen.sent_type]["schema"]
    if seen.sent_type == "application/json":
        assert seen.sent is not None
        assert faults(schema, json.loads(seen.sent)) == []


def check_answer(operation: Operation, seen: Exchange) -> None:
    assert 200 <= seen.status < 300, seen.answered
    content = operation.responses[str(seen.status)].get("content", {})
    if not content:
        assert seen.answered == b""
        return
    schema = content[seen.answered_type]["schema"]
    assert seen.answered
    if seen.answered_type == "application/json":
        assert faults(schema, json.loads(seen.answered)) == []


def test_a_wrong_answer_is_found() -> None:
    operation = operation_of("GET", "/api/v1/jobs/x/tasks")
    assert operation is not None
    wrong = Exchange("GET", "/api/v1/jobs/x/tasks", {}, "", b"", 200, "application/json", b'{"items": [{}]}')
    with pytest.raises(AssertionError):
        check_answer(operation, wrong)
    with pytest.raises(AssertionError):
        check_request(operation, Exchange(**{**asdict(wrong), "query": {"size": ["1"]}}))
