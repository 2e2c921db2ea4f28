"""A service on a temporary data directory, with a fake job process that ends in any way it is told."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from service.access.principal import DEFAULT_PROJECT
from service.app import create_app
from service.database import Database, ProjectDatabase
from service.database.upgrade import upgrade
from service.services import ProjectServices, Services
from service.settings import Settings
from tests import models
from tests.service import contract
from tests.service.fake_job import BEHAVIOUR
from tests.service.postgresql import PostgresqlServer, postgresql_server, text_of
from tests.service.ray_cluster import RayCluster, on_ray, ray_cluster, ray_environment
from tests.signed_in import TestClient

ROOT = Path(__file__).resolve().parents[2]
FAKE_JOB = (sys.executable, str(Path(__file__).with_name("fake_job.py")))
ON_BOTH_DATABASES = frozenset(
    {
        "test_backup",
        "test_cost_models",
        "test_database",
        "test_jobs_api",
        "test_metrics",
        "test_matrix",
        "test_projects",
        "test_wall",
        "test_audit",
        "test_tokens",
        "test_record_stores",
        "test_records_api",
        "test_records_page",
        "test_reporter",
        "test_retention",
        "test_settings_page",
        "test_targets_api",
        "test_webhooks",
    }
)

Value = TypeVar("Value")
Served = Callable[..., AbstractContextManager[TestClient]]


@pytest.fixture(autouse=True)
def every_answer_is_documented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever an application answers in these tests, the OpenAPI document has its status, media type and code."""
    found: set[str] = set()
    answer = FastAPI.__call__

    async def watch(app: FastAPI, scope: Scope, receive: Receive, send: Send) -> None:
        status, media_type, body = 0, "", b""

        async def note(message: Message) -> None:
            nonlocal status, media_type, body
            if message["type"] == "http.response.start":
                status = message["status"]
                media_type = dict(message["headers"]).get(b"content-type", b"").decode().partition(";")[0]
            elif message["type"] == "http.response.body" and status >= 400:
                body += message.get("body", b"")
            await send(message)

        await answer(app, scope, receive, note)
        if status:
            asked = (scope["method"], scope["path"])
            found.update(contract.undocumented(*asked, status=status, media_type=media_type, body=body))

    monkeypatch.setattr(FastAPI, "__call__", watch)
    yield
    assert found == set(), "not in the OpenAPI document"


@pytest.fixture(autouse=True)
def no_secret_is_logged() -> Iterator[None]:
    """Not a line that anything logs in these tests has a token, a session or a sign-in code in it."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(lambda record: not record.name.startswith("httpx2"))  # what a test asked for is no line of ours
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield
    root.setLevel(before)
    root.removeHandler(handler)
    assert secrets_in(written.getvalue()) == [], "in the log"


def secrets_in(text: str) -> list[str]:
    return re.findall(r"ts[snl]_[A-Za-z0-9_-]{43,}", text)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    with postgresql_server() as server:
        yield server


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What asks the database for anything of its own is tested on both kinds, the rest on SQLite; what an engine does,
    on both engines, the rest on the local one."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "database_url" in metafunc.fixturenames and module in ON_BOTH_DATABASES:
        metafunc.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
    if "engine" in metafunc.fixturenames and module == "test_engine":
        of_one_kind = metafunc.definition.get_closest_marker("local_engine") is not None
        on_ray = pytest.param("ray", marks=[pytest.mark.installation, pytest.mark.timeout(900)])
        metafunc.parametrize("engine", ["local"] if of_one_kind else ["local", on_ray], indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database. The one on PostgreSQL is upgraded already."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'test.sqlite3'}"
    server: PostgresqlServer = request.getfixturevalue("postgresql")
    return text_of(server.upgraded())


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 service."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URL of a new bucket's prefix, whose credentials are in the environment."""
    import obstore
    from obstore.store import HTTPStore

    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"b{abs(hash(request.node.nodeid)) % 10**12}"
    obstore.put(HTTPStore(s3, client_options={"allow_http": True}), name, b"")
    return f"s3://{name}/blobs"


@pytest.fixture(scope="module")
def ray_head() -> Iterator[RayCluster]:
    """A cluster of one node, which measures for this machine's target."""
    with ray_cluster() as cluster:
        cluster.start_head(cores=100, resources={"target:host": 100})  # places for what earlier tests left
        yield cluster


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The settings of an engine."""
    if getattr(request, "param", "local") == "local":
        return {}
    cluster: RayCluster = request.getfixturevalue("ray_head")
    for name, value in ray_environment().items():
        monkeypatch.setenv(name, value)
    return {"engine": "ray", "ray_address": cluster.address}


@pytest.fixture
def settings(tmp_path: Path, database_url: str, engine: dict[str, object]) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=database_url, **engine)  # type: ignore[arg-type]


@pytest.fixture
def database(database_url: str) -> Iterator[ProjectDatabase]:
    """An upgraded database of its own, as the default project sees it."""
    database = Database(database_url)
    upgrade(database)
    yield database.of_project(DEFAULT_PROJECT)
    database.close()


@pytest.fixture
def client(settings: Settings) -> Iterator[TestClient]:
    """The application without an engine: jobs stay in the queue."""
    with TestClient(create_app(settings, engine=False)) as client:
        yield client


@pytest.fixture
def services(client: TestClient) -> ProjectServices:
    return services_of(client)


@pytest.fixture
def fake(settings: Settings) -> Served:
    """The application with an engine whose jobs are `fake_job.py`; the argument says what it does."""

    @contextmanager
    def serve(behaviour: str, **changes: object) -> Iterator[TestClient]:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        (settings.data_dir / BEHAVIOUR).write_text(behaviour)
        app = create_app(settings.model_copy(update=changes), job_command=FAKE_JOB)
        with TestClient(app) as client:
            yield client

    return serve


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return models.write(models.perceptron(), tmp_path / "perceptron.onnx")


def services_of(client: TestClient, project: str = DEFAULT_PROJECT, *, user: str = "local") -> ProjectServices:
    """What requests of the project work with."""
    services = client.app.state.services  # type: ignore[attr-defined]
    assert isinstance(services, Services)
    return services.of_project(project, user=user)


def upload(client: TestClient, path: Path) -> str:
    """The id of the uploaded model."""
    response = client.post(f"/api/v1/models?filename={path.name}", content=path.read_bytes())
    assert response.status_code in (200, 201), response.text
    return str(response.json()["id"])


def start(client: TestClient, path: Path, **body: object) -> str:
    """The id of a new job for the model."""
    response = client.post("/api/v1/jobs", json={"model_id": upload(client, path), "trials": 8, **body})
    assert response.status_code == 201, response.text
    return str(response.json()["id"])


def until(look: Callable[[], Value | None], *, within_s: float | None = None) -> Value:
    """The first true value that ``look`` returns.

    Without ``within_s`` nothing was promised, and a test is only kept from hanging: 20 s, on a Ray cluster 120, since a
    busy machine may take a minute to connect to it and to start a job there.
    """
    if within_s is None:
        within_s = 120.0 if on_ray() else 20.0
    deadline = time.monotonic() + within_s
    while not (value := look()):
        assert time.monotonic() < deadline, f"nothing within {within_s} s"
        time.sleep(0.02)
    return value


def ready(client: TestClient) -> None:
    """Wait until the service takes work: an engine may have to connect first."""
    until(lambda: client.get("/readyz").status_code == 200, within_s=60)


def ended(client: TestClient, job_id: str, *, within_s: float | None = None) -> dict[str, object]:
    """The job, once it has ended; by default within a minute, on a Ray cluster three."""
    if within_s is None:
        within_s = 180.0 if on_ray() else 60.0

    def look() -> dict[str, object] | None:
        job: dict[str, object] = client.get(f"/api/v1/jobs/{job_id}").json()
        return job if job["state"] in ("succeeded", "failed", "cancelled") else None

    return until(look, within_s=within_s)
