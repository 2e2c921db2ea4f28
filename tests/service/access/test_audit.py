"""The log of changes: who, when, from where, what, and what came of it."""

from __future__ import annotations

import logging
from datetime import timedelta
from pathlib import Path

import pytest

from service.access import audit
from service.access.principal import Principal
from service.access.scopes import AccessScope
from service.database.base import now
from service.errors import StorageFull
from service.services import ProjectServices
from tests.service.access.conftest import HTML, ORIGIN, Tokens, nobody, sign_in
from tests.service.conftest import start
from tests.signed_in import TestClient


def told(client: TestClient) -> list[tuple[str, str, str, int | None]]:
    items = client.get("/api/v1/audit").json()["items"]
    return [(each["who"], each["method"], each["path"], each["status"]) for each in reversed(items)]


def test_every_change_is_in_it_and_nothing_else(client: TestClient, token: Tokens, model_file: Path) -> None:
    job_id = start(client, model_file)
    reader = token("read")
    client.get("/api/v1/jobs", headers=reader)
    client.post(f"/api/v1/jobs/{job_id}/cancel", headers=reader)
    client.post(f"/api/v1/jobs/{job_id}/cancel", headers=token("submit"))
    client.delete("/api/v1/jobs/nothing")
    with nobody(client) as anybody:
        anybody.post("/api/v1/jobs")  # strangers fill no table
        sign_in(anybody, {"Authorization": "Bearer tss_wrong"})
        sign_in(anybody, reader)
        anybody.post("/sign-out", headers={**HTML, **ORIGIN})
    assert told(client) == [
        ("local", "POST", "/api/v1/models", 201),
        ("local", "POST", "/api/v1/jobs", 201),
        ("read", "POST", f"/api/v1/jobs/{job_id}/cancel", 403),
        ("submit", "POST", f"/api/v1/jobs/{job_id}/cancel", 202),
        ("local", "DELETE", "/api/v1/jobs/nothing", 404),
        ("nobody", "POST", "/sign-in", 401),
        ("read", "POST", "/sign-in", 303),
        ("read", "POST", "/sign-out", 303),
    ]
    newest = client.get("/api/v1/audit?limit=1").json()["items"][0]
    assert newest["address"] == "testclient"
    assert newest["token_id"] in {each["id"] for each in client.get("/api/v1/tokens").json()["items"]}


def test_it_comes_in_pages(client: TestClient) -> None:
    for number in range(5):
        client.delete(f"/api/v1/jobs/{number}")
    seen, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/api/v1/audit?limit=2{cursor}").json()
        assert len(page["items"]) <= 2
        seen += [each["path"] for each in page["items"]]
        cursor = f"&cursor={page['next_cursor']}" if page["next_cursor"] else None
    assert seen == [f"/api/v1/jobs/{number}" for number in (4, 3, 2, 1, 0)]
    assert client.get("/api/v1/audit?cursor=x").json()["code"] == "invalid_cursor"


def test_times_are_of_the_change(client: TestClient, services: ProjectServices) -> None:
    client.delete("/api/v1/jobs/x")
    (entry,) = audit.list_audit(services.database).items
    assert timedelta(0) <= now() - entry.at < timedelta(minutes=1)


def test_what_cannot_be_noted_is_in_the_servers_log(
    services: ProjectServices, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full() -> None:
        raise StorageFull("There is no space left for the database.")

    monkeypatch.setattr(services.database, "write", full)
    somebody = Principal(name="ci", scope=AccessScope.SUBMIT)
    with caplog.at_level(logging.ERROR):
        audit.record(services.database, somebody, address="192.0.2.7", method="POST", path="/x", status=201)
    assert "Not in the audit log (StorageFull): POST /x by ci" in caplog.text


def test_tokens_and_changes_are_on_the_settings_page(client: TestClient) -> None:
    made = client.post("/settings/tokens", data={"name": "ci <b>", "scope": "submit", "days": "90"}, headers=ORIGIN)
    assert made.status_code == 200
    assert '<code id="made-token">tss_' in made.text
    page = client.get("/settings").text
    assert "ci &lt;b&gt;" in page
    assert "made-token" not in page
    assert "POST /settings/tokens" in page
    (token,) = [each for each in client.get("/api/v1/tokens").json()["items"] if each["kind"] == "made"]
    assert token["expires_at"] is not None
    for wrong, why in (
        ({"name": ""}, "The token has no name."),
        ({"name": "ci <b>"}, "There is a token named"),
        ({"name": "x", "days": "0"}, "A token lives 1 to 3650 days."),
        ({"name": "x", "days": "soon"}, "is no whole number of days."),
    ):
        refused = client.post("/settings/tokens", data={"scope": "read", **wrong}, headers=ORIGIN)
        assert refused.status_code in (409, 422)
        assert why in refused.text
    revoked = client.post(f"/settings/tokens/{token['id']}/revoke", headers=ORIGIN, follow_redirects=False)
    assert (revoked.status_code, revoked.headers["location"]) == (303, "/settings#access")
    (token,) = [each for each in client.get("/api/v1/tokens").json()["items"] if each["kind"] == "made"]
    assert token["revoked_at"] is not None
