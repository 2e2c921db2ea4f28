"""Targets over REST: what can be done for them here, and jobs for several."""

from __future__ import annotations

from pathlib import Path

import pytest
from httpx2 import Response

from tests.service.conftest import start, upload
from tests.signed_in import TestClient
from tuner.targets import host_target


def test_targets_say_what_can_be_done_for_them_here(client: TestClient) -> None:
    targets = {target["name"]: target for target in client.get("/api/v1/targets").json()["items"]}
    assert targets["host"]["measurable"]
    pi, risc = targets["raspberry-pi-4"], targets["riscv64"]
    assert (pi["module"], pi["linker"], pi["measurable"]) == ("module.so", "zig cc", False)
    assert (risc["module"], risc["linker"], risc["has_runtime"]) == ("module.tar", None, False)
    assert [device["target"] for device in client.get("/api/v1/devices").json()["items"]] == ["host"]


@pytest.mark.parametrize(("target", "measure"), [("host", "device"), ("raspberry-pi-4", "none")])
def test_the_start_page_measures_where_it_can(client: TestClient, model_file: Path, target: str, measure: str) -> None:
    model_id = upload(client, model_file)
    assert "Built without measuring" in client.get(f"/new?model={model_id}").text
    fields = {"action": "start", "target": target, "budget": "trials", "trials": "8", "seed": "0", "shape:x": "1x2"}
    sent = client.post(f"/new/{model_id}", data=fields, headers={"origin": "http://localhost"}, follow_redirects=False)
    assert sent.status_code == 303, sent.text
    (job,) = client.get("/api/v1/jobs").json()["items"]
    assert (job["target"], job["measure"]) == (target, measure)


def test_targets_of_ones_own(client: TestClient, model_file: Path) -> None:
    host = host_target()
    body = {"name": "one-thread", "tvm": {**host.tvm, "num-cores": 1}, "triple": host.triple, "threads": 1}
    made = client.post("/api/v1/targets", json=body)
    assert made.status_code == 201
    assert made.json()["fingerprint"] != host.fingerprint
    names = [t["name"] for t in client.get("/api/v1/targets").json()["items"]]
    assert (names[0], names[-1]) == ("host", "one-thread")
    assert client.post("/api/v1/targets", json=body).json()["code"] == "target_exists"
    assert start(client, model_file, target="one-thread")
    board = client.post("/api/v1/targets", json={**body, "name": "board", "triple": "riscv64-linux-gnu"})
    assert board.status_code == 201
    refused = client.post("/api/v1/jobs", json={"model_id": upload(client, model_file), "target": "board"})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_device")
    assert refused.json()["details"]["choices"] == ["measure: none", "target: host"]
    assert start(client, model_file, target="board", measure="none")
    assert (
        client.post("/api/v1/targets", json={**body, "name": "x", "tvm": {"kind": "vulkan"}}).json()["code"]
        == "invalid_target"
    )
    gpu = client.post("/api/v1/targets", json={**body, "name": "gpu", "tvm": {"kind": "cuda", "arch": "sm_80"}})
    assert (gpu.status_code, gpu.json()["code"]) == (422, "invalid_target")
    assert "needs host, max_shared_memory_per_block" in gpu.json()["detail"]


def test_gpus_are_built_for_and_not_measured(client: TestClient, model_file: Path) -> None:
    gpu = next(t for t in client.get("/api/v1/targets").json()["items"] if t["name"] == "cuda-8.0")
    assert (gpu["processor"], gpu["module"], gpu["measurable"]) == ("sm_80", "module.so", False)
    assert gpu["checked_on"] == "host"
    refused = client.post("/api/v1/jobs", json={"model_id": upload(client, model_file), "target": "cuda-8.0"})
    assert (refused.status_code, refused.json()["code"]) == (409, "no_device")
    assert start(client, model_file, target="cuda-8.0", measure="none")


def test_a_sweep_makes_one_job_for_each_target(client: TestClient, model_file: Path) -> None:
    model_id = upload(client, model_file)
    origin = {"origin": "http://localhost"}

    def send(also: list[str]) -> Response:
        fields = {
            "action": "start",
            "target": "host",
            "also": also,
            "budget": "trials",
            "trials": "8",
            "shape:x": "1x2",
        }
        return client.post(f"/new/{model_id}", data=fields, headers=origin, follow_redirects=False)

    sent = send(["raspberry-pi-4", "host", "cuda-8.0"])
    assert (sent.status_code, sent.headers["location"]) == (303, "/")
    jobs = client.get("/api/v1/jobs").json()["items"]
    assert [(job["target"], job["measure"]) for job in reversed(jobs)] == [
        ("host", "device"),
        ("raspberry-pi-4", "none"),
        ("cuda-8.0", "none"),
    ]
    wrong = send(["raspberry-pi-5", "abacus"])
    assert wrong.status_code == 404
    assert "abacus" in wrong.text
    assert '<input type="checkbox" name="also" value="raspberry-pi-5" checked>' in wrong.text
    assert len(client.get("/api/v1/jobs").json()["items"]) == 3  # all or none
