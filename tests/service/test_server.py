"""The server as a whole: what it loads, how fast it answers, who owns the data, how it is watched."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import psutil
import pytest

from service.app import create_app
from service.database.upgrade import head_revision
from service.errors import DataDirInUse
from service.settings import Settings
from tests.service.conftest import ROOT, until, upload
from tests.signed_in import AUTH, TestClient, remember

_HEAVY = ("tvm", "onnx", "onnxruntime", "xgboost", "numpy", "scipy", "sklearn")
_LIBRARIES = 4.5


@contextmanager
def serving(data_dir: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str, float]]:
    """``tessera serve``: its process, its URL, and the CPU seconds that it spent until it answered."""
    environment = {**os.environ, "TESSERA_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT), **variables}
    server = subprocess.Popen(
        [sys.executable, "-m", "service", "serve", "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("Tessera is ready: "), line
        url = line.split()[-1]
        assert httpx2.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
        remember(url, Settings(data_dir=data_dir))
        spent = psutil.Process(server.pid).cpu_times()
        yield server, url, spent.user + spent.system
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=15)
        if server.stdout is not None:
            server.stdout.close()


def test_the_web_process_loads_no_compiler_and_no_model_library(tmp_path: Path, model_file: Path) -> None:
    script = f"""
import json, sys
from tests.signed_in import TestClient
from service.app import create_app
from service.settings import Settings
with TestClient(create_app(Settings(data_dir={str(tmp_path / "d")!r}))) as client:
    model = client.post("/api/v1/models", content=open({str(model_file)!r}, "rb").read()).json()
    for path in ("/", "/docs", "/metrics", "/readyz", "/models", "/targets", "/api/v1/targets", "/api/v1/devices",
                 "/api/v1/cost-models", "/api/v1/records", "/api/v1/openapi.json"):
        assert client.get(path).status_code == 200, path
    loaded = [name for name in {_HEAVY!r} if name in sys.modules]
print(json.dumps(loaded))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_it_starts_in_little_more_than_its_libraries_take(tmp_path: Path) -> None:
    """Under two seconds on an idle machine, where the web framework and SQLAlchemy take 0.6 of them."""
    cache = {"PYTHONPYCACHEPREFIX": str(tmp_path / "pyc"), "PYTHONDONTWRITEBYTECODE": ""}
    with serving(tmp_path / "data", **cache):
        pass  # bytecode is written now, as an installation does
    with serving(tmp_path / "data", **cache) as (_server, _url, spent_s):
        # Processor time of both, so that neither a slow machine nor a test beside this one can make it fail.
        libraries = "import time, fastapi, sqlalchemy.orm; print(time.process_time())"
        done = subprocess.run(
            [sys.executable, "-c", libraries], env={**os.environ, **cache}, capture_output=True, text=True, check=True
        )
        assert spent_s < _LIBRARIES * float(done.stdout)


def test_a_second_server_is_refused_and_told_where_the_first_is(tmp_path: Path) -> None:
    with serving(tmp_path) as (_server, url, _took):
        second = subprocess.run(
            [sys.executable, "-m", "service", "serve", "--port", "0", "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        assert second.returncode == 1
        assert url in second.stderr
        assert "TESSERA_DATA_DIR" in second.stderr
        assert "Traceback" not in second.stderr
        with pytest.raises(DataDirInUse), TestClient(create_app(Settings(data_dir=tmp_path))):
            pass


def test_the_data_is_free_again_after_a_kill(tmp_path: Path) -> None:
    with serving(tmp_path) as (server, _url, _took):
        server.kill()
        server.wait()
        with TestClient(create_app(Settings(data_dir=tmp_path))) as client:
            assert client.get("/readyz").json()["status"] == "ok"


def test_an_open_stream_does_not_keep_it_alive(tmp_path: Path, model_file: Path) -> None:
    with (
        serving(tmp_path, TESSERA_MAX_PARALLEL_JOBS="0") as (server, url, _took),
        httpx2.Client(base_url=f"{url}/api/v1", auth=AUTH, trust_env=False) as http,
    ):
        model = http.post("/models", content=model_file.read_bytes()).json()
        job = http.post("/jobs", json={"model_id": model["id"]}).json()
        with http.stream("GET", f"/jobs/{job['id']}/events") as stream:
            lines = stream.iter_lines()
            assert any(line.startswith("event: state") for line in lines)
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=10)
    assert not psutil.pid_exists(server.pid)


def test_readiness_names_what_is_wrong(client: TestClient) -> None:
    assert client.get("/readyz").json()["checks"][0] == {
        "name": "database",
        "ok": True,
        "detail": f"revision {head_revision()}",
    }
    from sqlalchemy import text

    with client.app.state.services.database.write() as session:  # type: ignore[attr-defined]
        session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    response = client.get("/readyz")
    assert response.status_code == 503
    assert [check["name"] for check in response.json()["checks"] if not check["ok"]] == ["database"]


def test_a_dead_engine_is_not_ready(settings: Settings) -> None:
    with TestClient(create_app(settings)) as client:
        assert client.get("/readyz").status_code == 200
        client.app.state.services.engine.stop()  # type: ignore[attr-defined]
        response = client.get("/readyz")
        assert [check["name"] for check in response.json()["checks"] if not check["ok"]] == ["engine"]


def test_metrics_come_from_the_database(client: TestClient, model_file: Path) -> None:
    model_id = upload(client, model_file)
    client.post("/api/v1/jobs", json={"model_id": model_id})
    text = client.get("/metrics").text
    assert 'tessera_jobs{state="queued"} 1.0' in text
    assert "tessera_models 1.0" in text
    assert f"tessera_model_bytes {float(model_file.stat().st_size)}" in text


def test_the_reference_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "<b>POST</b> /api/v1/jobs</code>" in page
    assert set(re.findall(r'<script[^>]*src="([^"]*)"', page)) == {"/static/theme.js", "/static/page.js"}
    assert page.count("<script") == 2
    assert not re.search(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", page)


def test_pages_of_other_sites_change_nothing(client: TestClient) -> None:
    refused = client.post("/api/v1/models", content=b"x", headers={"origin": "http://evil.example"})
    assert (refused.status_code, refused.json()["code"]) == (403, "cross_origin")
    own = client.post("/api/v1/models", content=b"x", headers={"origin": "http://localhost"})
    assert own.json()["code"] == "not_onnx"


def test_a_job_survives_a_killed_server(tmp_path: Path, model_file: Path) -> None:
    """The command of the job is real: it fails in the tuner at once on a target that it cannot build."""
    with serving(tmp_path) as (server, url, _took):
        with httpx2.Client(base_url=f"{url}/api/v1", auth=AUTH, trust_env=False) as http:
            model = http.post("/models", content=model_file.read_bytes()).json()
            job = http.post("/jobs", json={"model_id": model["id"], "input_shapes": {"nope": [1]}}).json()
        server.kill()
        server.wait()
        with (
            serving(tmp_path) as (_again, url, _took),
            httpx2.Client(base_url=f"{url}/api/v1", auth=AUTH, trust_env=False) as http,
        ):

            def look() -> dict[str, object] | None:
                now = http.get(f"/jobs/{job['id']}").json()
                return now if now["state"] == "failed" else None

            failed = until(look, within_s=60)
            assert failed["error"]["code"] not in ("internal_error", "job_died")  # type: ignore[index]
