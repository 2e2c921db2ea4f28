"""Every route × scope × project: what a token of one project can learn of, and do to, what another project has.

The routes are those of the OpenAPI document and of the pages, as they are: a new one is asked, too. One whose path has
a place that nothing here fills, or that needs a body that is not here, fails.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from sqlalchemy import select

from service.access import policy
from service.access.scopes import AccessScope
from service.dashboard import netron
from service.database.tables import Artifact, Target
from service.database.wall import project_of
from service.jobs.commands import create_job
from service.queries.targets import all_targets
from service.schemas.jobs import JobCreate
from service.schemas.webhooks import WebhookCreate
from service.services import ProjectServices
from service.stores import DatabaseCostModelStore, JobReporter
from service.webhooks.addresses import Reach
from service.webhooks.commands import create_webhook, try_webhook
from tests import models
from tests.acceptance import seed
from tests.service.access.conftest import HTML, ORIGIN, header_of, nobody
from tests.service.access.test_policy import ROUTES
from tests.service.conftest import services_of, upload
from tests.service.contract import operation_of
from tests.service.test_wall import BEHIND
from tests.service.tuning import claimed
from tests.service.versions import stored
from tests.signed_in import TestClient
from tuner.targets import TargetSpec, host_target

Route = tuple[str, str]
SCOPES = list(AccessScope)
GUARDED = [route for route in ROUTES if isinstance(policy.rules()[route], AccessScope)]
# The name of everything of the project that is looked for in the answers that others get.
SECRET = "zebra"
# Tokens and the log of changes are the whole server's, for whoever has the scope admin in any project.
OF_THE_SERVER: set[Route] = {
    ("GET", "/api/v1/tokens"),
    ("DELETE", "/api/v1/tokens/{token_id}"),
    ("GET", "/api/v1/audit"),
    *((method, path) for method, path in ROUTES if path.startswith("/settings")),
}
# What is beside a job of one's own is not deleted with its model.
SPARE: set[Route] = {("DELETE", "/api/v1/models/{model_id}"), ("POST", "/models/{model_id}/delete")}
WAITING: set[Route] = {("POST", "/api/v1/jobs/{job_id}/cancel"), ("POST", "/jobs/{job_id}/cancel")}
# Places in paths that are of no project.
NO_PLACE = {"wanted": netron.version(), "version": "1", "number": "1", "task_key": "task0"}


@dataclass(frozen=True, kw_only=True)
class Furnished:
    """What one project has: places in paths by their names, and more that requests name."""

    places: dict[str, str]
    spare_model: str
    waiting_job: str
    new_model: bytes
    services: ProjectServices

    def address(self, route: Route) -> str:
        changed = {"model_id": self.spare_model} if route in SPARE else {}
        changed |= {"job_id": self.waiting_job} if route in WAITING else {}
        known = {**NO_PLACE, **self.places, **changed}
        if route[1].startswith("/netron/"):
            known["name"] = "onnx.js"
        return re.sub(r"\{(\w+)\}", lambda found: known[found[1]], route[1])

    def request(self, route: Route) -> dict[str, Any]:
        """What goes with a request beside its address."""
        return REQUESTS[route](self) if route in REQUESTS else {}


def furnish(client: TestClient, project: str, folder: Path, *, number: int = 0) -> Furnished:
    """A project with something of everything, under the name of its own."""
    services = services_of(client, project, user=f"{SECRET} user")
    header = header_of(client, project)
    before = client.headers["Authorization"]
    client.headers.update(header)
    try:
        model_id, spare = (
            upload(client, models.write(models.perceptron(seed=seed), folder / f"{SECRET}-{seed}.onnx"))
            for seed in (2 * number, 2 * number + 1)
        )
    finally:
        client.headers["Authorization"] = before
    target = f"{SECRET}-target"
    spec = TargetSpec.from_dict({**host_target().as_dict(), "name": target, "threads": 1})
    if target not in [each.name for each in all_targets(services.database)]:
        with services.database.write() as session:
            session.add(Target(name=target, spec=spec.as_dict()))
    cost_models = DatabaseCostModelStore(services.database, services.blobs)
    for samples in (100, 200):
        cost_models.save(stored(SECRET.encode(), samples=samples, target_fingerprint=spec.fingerprint))
    job_id = create_job(services, JobCreate(model_id=model_id, trials=16)).job.id
    while claimed(services.database) != job_id:
        pass
    reporter = JobReporter(services.database, job_id)
    seed.tune(services, job_id, reporter, trials=16, total=16)
    seed.succeed(services, job_id, reporter, tuned_us=7460.0)
    hook = WebhookCreate(url=f"https://{SECRET}.example/hook")
    webhook = create_webhook(services.database, hook, reach=Reach(services.settings))
    try_webhook(services.database, webhook.id)
    with services.database.read() as session:
        artifact = session.scalar(select(Artifact.id).where(Artifact.job_id == job_id, Artifact.kind == "bundle"))
    assert artifact is not None
    token = client.post("/api/v1/tokens", json={"name": f"{SECRET} {number}", "scope": "read", "project": project})
    return Furnished(
        places={
            "model_id": model_id,
            "job_id": job_id,
            "artifact_id": artifact,
            "webhook_id": webhook.id,
            "token_id": token.json()["id"],
            "name": target,
            "target": target,
        },
        spare_model=spare,
        waiting_job=create_job(services, JobCreate(model_id=model_id, trials=8)).job.id,
        new_model=models.convolutional(seed=number).SerializeToString(),
        services=services,
    )


def _samples() -> bytes:
    file = io.BytesIO()
    np.savez(file, x=np.zeros((1, 4, 32), np.float32))
    return file.getvalue()


def _form(**fields: Any) -> dict[str, Any]:
    return {"data": fields}


_TARGET = {"name": "one-thread", "tvm": {"kind": "llvm"}, "triple": "x86_64-linux-gnu", "threads": 1}
_START = _form(action="start", target="host", budget="trials", trials="8", seed="0")
REQUESTS: dict[Route, Callable[[Furnished], dict[str, Any]]] = {
    ("GET", "/api/v1/jobs"): lambda has: {"params": {"model_id": has.places["model_id"]}},
    ("GET", "/api/v1/records"): lambda has: {"params": {"target": "host"}},
    ("GET", "/records"): lambda has: {"params": {"which": "all"}},
    ("GET", "/compare"): lambda has: {"params": {"job": [has.places["job_id"], has.waiting_job]}},
    ("GET", "/new"): lambda has: {"params": {"model": has.places["model_id"]}},
    ("POST", "/api/v1/models"): lambda has: {
        "params": {"filename": "other.onnx"},
        "content": has.new_model,
    },
    ("POST", "/api/v1/samples"): lambda has: {"params": {"filename": "s.npz"}, "content": _samples()},
    ("POST", "/api/v1/models/{model_id}/check"): lambda has: {"json": {"target": "nowhere"}},
    ("POST", "/api/v1/targets"): lambda has: {"json": _TARGET},
    ("POST", "/api/v1/jobs"): lambda has: {"json": {"model_id": has.places["model_id"], "trials": 8}},
    ("POST", "/api/v1/records"): lambda has: {"content": json.dumps({"workloads": [], "records": []})},
    ("POST", "/api/v1/webhooks"): lambda has: {"json": {"url": "https://hook.example/x"}},
    ("PUT", "/api/v1/storage/retention"): lambda has: {"json": {"days": 300}},
    ("POST", "/api/v1/storage/clean-up"): lambda has: {"json": {"days": 1}},
    ("POST", "/api/v1/tokens"): lambda has: {"json": {"name": "new", "scope": "read"}},
    ("POST", "/new"): lambda has: {"files": {"file": ("other.onnx", has.new_model)}},
    ("POST", "/new/{model_id}"): lambda has: _START,
    ("POST", "/jobs/cancel"): lambda has: _form(job=[has.waiting_job]),
    ("POST", "/records"): lambda has: {"files": {"file": ("r.json", b'{"workloads": [], "records": []}')}},
    ("POST", "/settings/retention"): lambda has: _form(days="300"),
    ("POST", "/settings/clean-up"): lambda has: _form(days="1"),
    ("POST", "/settings/webhooks"): lambda has: _form(url="https://hook.example/y"),
    ("POST", "/settings/tokens"): lambda has: _form(name="newer", scope="read"),
}
# Not 2xx or 3xx, though all is well: the check itself starts a compiler, which is of no interest here.
ANSWERS = {("POST", "/api/v1/models/{model_id}/check"): 404}


def ask(client: TestClient, route: Route, has: Furnished, header: dict[str, str], **changes: Any) -> httpx2.Response:
    page = {} if operation_of(*route) is not None else HTML
    return client.request(
        route[0], has.address(route), headers={**header, **ORIGIN, **page}, **{**has.request(route), **changes}
    )


def test_the_own_project_and_every_scope(client: TestClient, tmp_path: Path) -> None:
    """What a scope allows is done, what it does not is refused, and nobody is asked for a token."""
    headers = {scope: header_of(client, "ours", scope) for scope in SCOPES}
    shared = furnish(client, "ours", tmp_path)
    with nobody(client) as anybody:
        for number, route in enumerate(GUARDED, start=1):
            need = policy.rules()[route]
            assert isinstance(need, AccessScope)
            assert ask(anybody, route, shared, {}).status_code in (401, 303), route
            for scope in (scope for scope in SCOPES if not scope.includes(need)):
                assert ask(anybody, route, shared, headers[scope]).status_code == 403, (route, scope)
            if route[0] == "GET":
                for scope in (scope for scope in SCOPES if scope.includes(need)):
                    answer = ask(anybody, route, shared, headers[scope])
                    assert answer.status_code < 400, (route, scope, answer.text)
                continue
            changed = furnish(client, "ours", tmp_path, number=number)
            answer = ask(anybody, route, changed, headers[need])
            allowed = answer.status_code == ANSWERS[route] if route in ANSWERS else answer.status_code < 400
            assert allowed, (route, answer.text)


def rows(services: ProjectServices) -> dict[str, list[str]]:
    """Everything that the project has in the database."""
    with services.database.read() as session:
        assert project_of(session) == services.project
        return {
            table.__tablename__: sorted(
                str({column.key: getattr(row, column.key) for column in table.__mapper__.columns})
                for row in session.scalars(select(table))
            )
            for table in BEHIND
        }


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_another_project_and_every_scope(client: TestClient, tmp_path: Path, scope: AccessScope) -> None:
    """What the other project has answers as what nobody has, is in no list and on no page, and stays as it is."""
    theirs = furnish(client, "theirs", tmp_path)
    marks = {SECRET, theirs.spare_model, theirs.waiting_job, *theirs.places.values()}
    before = rows(theirs.services)
    header = header_of(client, "ours", scope)
    unknown = Furnished(
        places={place: "f" * len(value) for place, value in theirs.places.items()},
        spare_model="f" * 64,
        waiting_job="e" * 36,
        new_model=theirs.new_model,
        services=theirs.services,
    )
    asked = 0
    with nobody(client) as asking:
        for path in ("models", "jobs", "cost-models", *(["webhooks"] if scope is AccessScope.ADMIN else [])):
            assert asking.get(f"/api/v1/{path}", headers=header).json() == {"items": [], "next_cursor": None}
        for route in GUARDED:
            need = policy.rules()[route]
            assert isinstance(need, AccessScope)
            if route in OF_THE_SERVER:
                assert need is AccessScope.ADMIN
            if not scope.includes(need) or route == ("DELETE", "/api/v1/tokens/{token_id}"):
                continue
            answer = ask(asking, route, theirs, header)
            sent = f"{theirs.address(route)} {theirs.request(route)}"
            if route not in OF_THE_SERVER:
                told = {mark for mark in marks if mark in answer.text and mark not in sent}
                assert told == set(), (route, answer.text)
            if names_something(route):
                asked += 1
                other = ask(asking, route, unknown, header)
                assert answer.status_code == other.status_code == 404, (route, answer.text)
                assert without_names(answer, theirs) == without_names(other, unknown), route
        assert asked > 15
        beginning = theirs.places["model_id"][:8]
        assert asking.get(f"/api/v1/models/{beginning}", headers=header).json()["code"] == "model_not_found"
    assert rows(theirs.services) == before


def names_something(route: Route) -> bool:
    """Whether the request names something of a project: by its path, or in its query or body."""
    named = {"model_id", "job_id", "artifact_id", "webhook_id", "name", "target"}
    of_path = set(re.findall(r"\{(\w+)\}", route[1])) & named and not route[1].startswith("/netron/")
    return bool(of_path) or route in {
        ("POST", "/api/v1/jobs"),
        ("POST", "/jobs/cancel"),
        ("GET", "/compare"),
        ("GET", "/new"),
    }


def without_names(answer: httpx2.Response, has: Furnished) -> str:
    text = answer.text
    for name in (has.spare_model, has.waiting_job, *has.places.values()):
        text = text.replace(name, "…")
    return text
