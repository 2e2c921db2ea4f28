"""Records over REST: out of one server, into another."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.app import create_app
from service.services import ProjectServices
from service.settings import Settings
from service.stores import DatabaseRecordStore
from tests.service.conftest import start
from tests.service.tuning import record, workload
from tests.signed_in import TestClient
from tuner.targets import host_target


def test_records_go_out_and_come_in(
    client: TestClient, services: ProjectServices, model_file: Path, tmp_path: Path
) -> None:
    fingerprint = host_target().fingerprint
    store = DatabaseRecordStore(services.database, start(client, model_file))
    store.add_workload(workload(1))
    store.add([record(1, target_fingerprint=fingerprint), record(2, target_fingerprint=fingerprint, latency_us=5.0)])
    exported = client.get("/api/v1/records?target=host")
    assert exported.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in exported.text.splitlines()]
    assert [line["kind"] for line in lines] == ["workload", "record", "record"]

    with TestClient(create_app(Settings(data_dir=tmp_path / "other"), engine=False)) as other:
        answer = other.post("/api/v1/records?target=host", content=exported.content).json()
        assert answer == {"workloads": 1, "records": 2, "skipped": 0}
        assert other.post("/api/v1/records", content=exported.content).json()["skipped"] == 2
        assert other.get("/api/v1/records?target=host").text == exported.text
        together = json.dumps({"workloads": lines[:1], "records": lines[1:]}, indent=1)
        assert other.post("/api/v1/records", content=together).json()["skipped"] == 2


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("nonsense", "records_invalid"),
        ('{"kind": "record"}', "records_invalid"),
        ("[]", "records_invalid"),
        ("both", "records_invalid"),
        ("foreign", "target_mismatch"),
        ("orphan", "records_invalid"),
    ],
)
def test_bad_records_store_nothing(client: TestClient, services: ProjectServices, line: str, code: str) -> None:
    good = {
        "kind": "record",
        "workload": "workload-1",
        "target_fingerprint": host_target().fingerprint,
        "variant": "full",
        "trace": "[]",
        "latency_us": 3.0,
    }
    made = {
        "both": {**good, "failure": "run_error"},
        "foreign": {**good, "target_fingerprint": "feedfeedfeedfeed"},
        "orphan": {**good, "workload": "unknown"},
    }
    known = {"kind": "workload", "key": "workload-1", "tvm_version": "0", "name": "w", "module_json": "{}", "flops": 1}
    bad = json.dumps(made[line]) if line in made else line
    body = "\n".join([json.dumps(known), json.dumps(good), bad])
    response = client.post("/api/v1/records", content=body)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert client.get("/api/v1/records?target=host").text == ""
    assert DatabaseRecordStore(services.database, "x").seen("workload-1", target_fingerprint="x") == []
