"""The check's child process: its report, its errors, and every way in which it can go wrong."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from service import preflight
from service.errors import Invalid, NotFound
from service.services import ProjectServices
from service.settings import Settings
from tests import models
from tests.service.conftest import services_of, upload
from tests.signed_in import TestClient
from tuner.errors import ModelError
from tuner.targets import TargetSpec, host_target


def child(script: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script)


def check(services: ProjectServices, model_id: str, script: str) -> dict[str, object]:
    report = preflight.check(services, model_id, target="host", input_shapes={"x": [1, 2]}, command=child(script))
    return report.model_dump()


def test_the_report_is_passed_on(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    model_id = upload(client, model_file)
    report = check(services, model_id, "import sys, json; print('noise'); print(json.dumps({'args': sys.argv[2:]}))")
    option, target, *shapes = report["args"]
    assert (option, shapes) == ("--target", ["--input-shape", "x=1x2"])
    assert TargetSpec.from_dict(json.loads(target)) == host_target()
    assert report["model_id"] == model_id


def test_the_tuners_error_is_passed_on(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    told = {"code": "missing_dimensions", "message": "m", "hint": "h", "details": {"dimensions": ["x[0]"]}}
    with pytest.raises(ModelError) as caught:
        check(services, upload(client, model_file), f"import json; print(json.dumps({{'error': {told!r}}})); exit(1)")
    assert caught.value.as_dict() == told


@pytest.mark.parametrize(
    "script",
    ["import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "raise RuntimeError", "print('nothing useful')"],
)
def test_a_crash_is_an_answer(client: TestClient, services: ProjectServices, model_file: Path, script: str) -> None:
    with pytest.raises(ModelError) as caught:
        check(services, upload(client, model_file), script)
    assert caught.value.code == "compiler_crashed"


def test_a_greedy_child_is_held_back(client: TestClient, services: ProjectServices, model_file: Path) -> None:
    with pytest.raises(ModelError) as caught:
        check(services, upload(client, model_file), "bytearray(64 * 2**30)")
    assert "MemoryError" in str(caught.value.details["stderr"])


def test_a_slow_child_is_ended_with_its_children(client: TestClient, model_file: Path, settings: Settings) -> None:
    hasty = replace(services_of(client), settings=settings.model_copy(update={"check_timeout_s": 1.0}))
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    started = time.monotonic()
    with pytest.raises(Invalid) as caught:
        check(hasty, upload(client, model_file), script)
    assert caught.value.code == "check_timeout"
    assert time.monotonic() - started < 15


def test_unknown_models_and_targets_start_nothing(
    client: TestClient, services: ProjectServices, model_file: Path
) -> None:
    with pytest.raises(NotFound):
        check(services, "0" * 64, "raise SystemExit")
    answer = client.post(f"/api/v1/models/{upload(client, model_file)}/check", json={"target": "toaster"})
    assert answer.json()["code"] == "unknown_target"


def test_the_real_check_over_rest(client: TestClient, model_file: Path, tmp_path: Path) -> None:
    fine = client.post(f"/api/v1/models/{upload(client, model_file)}/check", json={"target": "host"})
    assert fine.status_code == 200, fine.text
    bad = upload(client, models.write(models.unsupported(), tmp_path / "bad.onnx"))
    refused = client.post(f"/api/v1/models/{bad}/check", json={})
    assert (refused.status_code, refused.json()["code"]) == (422, "unsupported_operators")
    assert refused.json()["details"]["operators"]
