"""The settings page: webhooks added, tried and removed by forms, and what is kept."""

from __future__ import annotations

import re
from pathlib import Path

from service.dashboard.figures import size
from service.services import ProjectServices
from service.webhooks.commands import list_deliveries, list_webhooks
from tests.service.conftest import start
from tests.signed_in import TestClient

ORIGIN = {"origin": "http://localhost"}


def test_a_webhook_comes_and_goes(client: TestClient, services: ProjectServices) -> None:
    assert "None yet." in client.get("/settings").text
    made = client.post("/settings/webhooks", data={"url": " https://ci.example.com/hook "}, headers=ORIGIN)
    assert made.status_code == 200
    secret = re.search(r'<code id="secret">([0-9a-f]{64})</code>', made.text)
    assert secret is not None
    shown = client.get("/settings").text
    assert "https://ci.example.com/hook" in shown
    assert secret.group(1) not in shown
    (webhook,) = list_webhooks(services.database)
    tried = client.post(f"/settings/webhooks/{webhook.id}/test", headers=ORIGIN, follow_redirects=False)
    assert (tried.status_code, tried.headers["location"]) == (303, "/settings")
    assert [each.event for each in list_deliveries(services.database, webhook.id).items] == ["test"]
    assert "1 waiting" in client.get("/settings").text
    client.post(f"/settings/webhooks/{webhook.id}/remove", headers=ORIGIN)
    assert list_webhooks(services.database) == []
    assert client.post(f"/settings/webhooks/{webhook.id}/remove", headers=ORIGIN).status_code == 404


def test_an_address_that_is_none_stays_in_the_field(client: TestClient) -> None:
    for url in ("ftp://somewhere", ""):
        answer = client.post("/settings/webhooks", data={"url": url}, headers=ORIGIN)
        assert answer.status_code == 422
        assert "invalid_webhook" in answer.text
        assert f'name="url" value="{url}"' in answer.text


def test_what_is_kept_is_counted(client: TestClient, model_file: Path) -> None:
    start(client, model_file)
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", client.get("/settings").text))
    assert f"Models 1 {size(model_file.stat().st_size)}" in text
    assert "Jobs 1 in the database" in text
    assert "Records 0 in the database" in text
    assert re.search(r"Database [\d.]+ [KM]iB", text)
    assert re.search(r"with [\d.]+ GiB free", text)
