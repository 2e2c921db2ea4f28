"""docker-compose.yml: what the specification asks of it, what we ask of it, and every service started as it says."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from packaging.requirements import Requirement
from sqlalchemy import make_url

from service import __version__
from service.settings import Settings
from tests import compose
from tests.compose import ROOT, VARIABLE, ByHand, Image
from tuner.board_setup import board_requirements

SECRETS = {"POSTGRES_PASSWORD": "p4", "S3_ACCESS_KEY": "a1", "S3_SECRET_KEY": "s2", "RAY_AUTH_TOKEN": "r" * 48}
SECRETS["TESSERA_BOOTSTRAP_TOKEN"] = "tss_0123456789abcdef" + "0" * 48
FILE = compose.read(SECRETS)
SERVICES: dict[str, Any] = FILE["services"]
_JOB_WITHIN_S = 120.0


def test_it_keeps_to_the_specification(tmp_path: Path) -> None:
    def check(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = check(ROOT / "docker-compose.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    broken = tmp_path / "broken.yml"
    broken.write_text(compose.source().replace("depends_on:", "depends_upon:"))
    assert check(broken).returncode == 1


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_pinned_watched_and_held_down(name: str) -> None:
    service = SERVICES[name]
    _, _, tag = service["image"].rpartition(":")
    if "build" in service:
        assert tag == __version__
        image = Image(service)
        assert re.findall(r"^USER (\S+)$", image.lines, re.MULTILINE) == ["tessera"]
        assert service.get("healthcheck") or image.healthcheck
    else:
        assert re.match(r"\d+\.\d+", tag)
        assert service["user"] not in ("root", "0")
        assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service


def test_the_base_image_is_pinned() -> None:
    assert re.findall(r"^FROM (\S+:\S+) ", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == [
        "python:3.12.11-slim-bookworm"
    ]


def test_only_the_api_is_published_and_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"api": ["127.0.0.1:8765:8765"]}
    assert FILE["networks"]["cluster"]["internal"]
    for name in ("postgresql", "seaweedfs", "ray-head"):
        assert SERVICES[name]["networks"] == ["cluster"]
    assert SERVICES["board"]["networks"] == ["boards"]


def test_what_is_named_is_there() -> None:
    for service in SERVICES.values():
        for other in service.get("depends_on", {}):
            assert other in SERVICES
        assert set(service["networks"]) <= FILE["networks"].keys()
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert volumes <= FILE["volumes"].keys()
    ports = [port for service in SERVICES.values() for port in service.get("expose", ())]
    assert len(ports) == len(set(ports))


def test_no_secret_is_in_the_file_and_every_variable_is_in_the_example() -> None:
    example = (ROOT / ".env.example").read_text()
    used = {found["name"]: found["kind"] for found in VARIABLE.finditer(compose.source())}
    assert {name for name, kind in used.items() if kind == "?"} == SECRETS.keys()
    assert set(re.findall(r"^(\w+)=(?:tss_)?$", example, re.MULTILINE)) == SECRETS.keys()
    assert set(re.findall(r"^# (\w+)=", example, re.MULTILINE)) == used.keys() - SECRETS.keys()
    for name in SECRETS:
        with pytest.raises(KeyError, match=name):
            compose.read({other: value for other, value in SECRETS.items() if other != name})
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            if re.search("PASSWORD|SECRET|TOKEN|ACCESS_KEY", key):
                assert value in SECRETS.values(), key


def test_the_documented_command_fills_the_example_in(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_text((ROOT / ".env.example").read_text())
    commands = [
        re.search(r"^(?:#   )?(sed -E .*? > \.env)", (ROOT / name).read_text(), re.MULTILINE)[1]  # type: ignore[index]
        for name in (".env.example", "docs/operations.md")
    ]
    assert commands[0] == commands[1]
    subprocess.run(commands[0], shell=True, cwd=tmp_path, check=True)
    filled = dict(re.findall(r"^(\w+)=(?:tss_)?([0-9a-f]{64})$", (tmp_path / ".env").read_text(), re.MULTILINE))
    assert filled.keys() == SECRETS.keys()
    assert len(set(filled.values())) == len(SECRETS)


def test_the_services_agree_with_each_other() -> None:
    environment = SERVICES["api"]["environment"]
    known = {f"TESSERA_{field.upper()}" for field in Settings.model_fields}
    assert {key for key in environment if key.startswith("TESSERA_")} <= known
    database, given = make_url(environment["TESSERA_DATABASE_URL"]), SERVICES["postgresql"]["environment"]
    assert (database.username, database.database) == (given["POSTGRES_USER"], given["POSTGRES_DB"])
    assert database.password == given["POSTGRES_PASSWORD"]
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert environment[key] == SERVICES["seaweedfs"]["environment"][key]
    for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        assert len({SERVICES[name]["environment"][key] for name in ("api", "ray-head", "ray-worker")}) == 1


def test_the_board_has_what_a_board_needs() -> None:
    awk = re.search(r"/\^\(([\w|-]+)\)==/", Image(SERVICES["board"]).lines)
    assert awk is not None
    assert set(awk[1].split("|")) == {Requirement(text).name for text in board_requirements()}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path: Ray's sockets are in it."""
    with tempfile.TemporaryDirectory(prefix="tessera-") as path:
        yield Path(path)


@pytest.mark.installation
def test_every_service_works_when_it_is_started_as_the_file_says(folder: Path, perceptron_model: Path) -> None:
    hand = ByHand(folder, SECRETS)
    stand_ins = {"postgresql": hand.postgresql, "seaweedfs": hand.seaweedfs}
    order = TopologicalSorter({name: service.get("depends_on", ()) for name, service in SERVICES.items()})
    with ExitStack() as stack:
        for name in order.static_order():
            stack.enter_context(stand_ins[name]() if name in stand_ins else hand.started(name))
        url = f"http://127.0.0.1:{hand.ports['8765']}/api/v1"
        token = {"Authorization": f"Bearer {SECRETS['TESSERA_BOOTSTRAP_TOKEN']}"}
        http = stack.enter_context(httpx2.Client(base_url=url, headers=token, trust_env=False, timeout=30))
        assert "aarch64" in {device["target"] for device in http.get("/devices").json()["items"]}
        model = http.post("/models?filename=perceptron.onnx", content=perceptron_model.read_bytes()).json()
        job = http.post("/jobs", json={"model_id": model["id"], "trials": 2}).json()
        deadline = time.monotonic() + _JOB_WITHIN_S
        while job["state"] in ("queued", "running"):
            assert time.monotonic() < deadline, job
            time.sleep(0.2)
            job = http.get(f"/jobs/{job['id']}").json()
        assert job["state"] == "succeeded", job
        artifacts = http.get(f"/jobs/{job['id']}/artifacts").json()["items"]
        (bundle,) = [each for each in artifacts if each["kind"] == "bundle"]
        assert len(http.get(f"/artifacts/{bundle['id']}/download").content) == bundle["size_bytes"]
