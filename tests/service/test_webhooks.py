"""Webhooks: told once a job has ended, signed, tried again, and accounted for."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.database.base import now
from service.database.tables import WebhookDelivery
from service.jobs import queue
from service.jobs.states import JobState
from service.services import ProjectServices
from service.webhooks.addresses import Reach
from service.webhooks.sender import RETRY_AFTER_S, WebhookSender
from service.webhooks.signature import HEADER, is_signed, signature
from tests.service.conftest import Served, ended, services_of, start, until
from tests.service.tuning import claimed
from tests.signed_in import TestClient


@dataclass
class Receiver:
    """What listens for messages: it answers with these statuses, then with 204."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[tuple[dict[str, Any], str, bytes]] = field(default_factory=list)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.got.append((json.loads(body), self.headers[HEADER], body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def add(client: TestClient, url: str) -> dict[str, Any]:
    made = client.post("/api/v1/webhooks", json={"url": url})
    assert made.status_code == 201, made.text
    created: dict[str, Any] = made.json()
    return created


def deliveries(client: TestClient, webhook: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.get(f"/api/v1/webhooks/{webhook['id']}/deliveries")
    assert answer.status_code == 200
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def send(services: ProjectServices) -> int:
    """What the sender's thread does every second; nothing has to be waited for."""
    with services.database.write() as session:
        due = update(WebhookDelivery).where(WebhookDelivery.state == "pending")
        session.execute(due.values(due_at=now() - timedelta(seconds=1)))
    return WebhookSender(services.database.whole, Reach(services.settings)).send_due()


def test_the_end_of_a_job_is_told(fake: Served, receiver: Receiver, model_file: Path) -> None:
    with fake("succeed") as client:
        webhook = add(client, receiver.url)
        job_id = start(client, model_file)
        ended(client, job_id)
        until(lambda: receiver.got)
        told, header, body = receiver.got[0]
        assert told["event"] == "job.ended"
        assert told["job"] == client.get(f"/api/v1/jobs/{job_id}").json()
        assert is_signed(body, header, secret=webhook["secret"])
        (delivery,) = until(lambda: [each for each in deliveries(client, webhook) if each["state"] == "delivered"])
        assert (delivery["id"], delivery["job_id"], delivery["attempts"]) == (told["delivery"], job_id, 1)
        assert delivery["status"] == 204
        (listed,) = client.get("/api/v1/webhooks").json()["items"]
        assert (listed["delivered"], listed["pending"]) == (1, 0)
        assert "secret" not in listed


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.CANCELLED])
def test_every_end_is_told_once(
    client: TestClient, services: ProjectServices, receiver: Receiver, model_file: Path, state: JobState
) -> None:
    webhook = add(client, receiver.url)
    job_id = start(client, model_file)
    if state is JobState.CANCELLED:
        queue.request_cancel(services.database, job_id)
    else:
        assert claimed(services.database) == job_id
        queue.finish(services.database, job_id, state, error={"code": "c", "message": "m", "hint": "h"})
        queue.finish(services.database, job_id, state)  # too late: nothing more is told
    assert (send(services), send(services)) == (1, 0)
    assert [told["job"]["state"] for told, *_ in receiver.got] == [state.value]
    assert len(deliveries(client, webhook)) == 1


def test_what_fails_is_tried_again_and_given_up_in_the_end(
    client: TestClient, services: ProjectServices, receiver: Receiver
) -> None:
    webhook = add(client, receiver.url)
    assert client.post(f"/api/v1/webhooks/{webhook['id']}/test").status_code == 202
    receiver.statuses = [500, 302]
    seen = []
    for _ in range(3):
        before = now()
        send(services)
        (delivery,) = deliveries(client, webhook)
        seen.append((delivery["state"], delivery["attempts"], delivery["status"], delivery["error"]))
        if delivery["state"] == "pending":
            waits_s = (datetime.fromisoformat(delivery["due_at"]) - before).total_seconds()
            assert waits_s == pytest.approx(RETRY_AFTER_S[delivery["attempts"] - 1], abs=5)
    assert seen == [
        ("pending", 1, 500, "it answered 500"),
        ("pending", 2, 302, "it answered 302"),  # never followed
        ("delivered", 3, 204, None),
    ]
    assert [told for told, *_ in receiver.got] == [{"event": "test", "delivery": delivery["id"]}] * 3

    gone = add(client, "http://127.0.0.1:9/nobody")
    client.post(f"/api/v1/webhooks/{gone['id']}/test")
    while send(services):
        pass
    (delivery,) = deliveries(client, gone)
    assert (delivery["state"], delivery["attempts"], delivery["status"]) == ("failed", len(RETRY_AFTER_S) + 1, None)
    assert "ConnectError" in delivery["error"]


def test_a_removed_webhook_is_told_nothing(
    client: TestClient, services: ProjectServices, receiver: Receiver, model_file: Path
) -> None:
    webhook = add(client, receiver.url)
    queue.request_cancel(services.database, start(client, model_file))
    assert client.delete(f"/api/v1/webhooks/{webhook['id']}").status_code == 204
    assert send(services) == 0
    assert receiver.got == []
    for answer in (
        client.delete(f"/api/v1/webhooks/{webhook['id']}"),
        client.post(f"/api/v1/webhooks/{webhook['id']}/test"),
        client.get(f"/api/v1/webhooks/{webhook['id']}/deliveries"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "webhook_not_found")


def test_a_deleted_job_takes_its_messages_with_it(
    client: TestClient, services: ProjectServices, receiver: Receiver, model_file: Path
) -> None:
    webhook = add(client, receiver.url)
    job_id = start(client, model_file)
    queue.request_cancel(services.database, job_id)
    assert client.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert send(services) == 0
    assert deliveries(client, webhook) == []


@pytest.mark.parametrize("url", ["ftp://host/x", "https://", "//host/path", "http://me:word@host/", "javascript:f()"])
def test_addresses_that_are_none(client: TestClient, url: str) -> None:
    answer = client.post("/api/v1/webhooks", json={"url": url})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_webhook")


def test_deliveries_come_in_pages(client: TestClient, receiver: Receiver) -> None:
    webhook = add(client, receiver.url)
    made = [client.post(f"/api/v1/webhooks/{webhook['id']}/test").json()["id"] for _ in range(5)]
    found, cursor = [], ""
    while cursor is not None:
        page = client.get(f"/api/v1/webhooks/{webhook['id']}/deliveries?limit=2{cursor and '&cursor=' + cursor}").json()
        found += [each["id"] for each in page["items"]]
        cursor = page["next_cursor"]
    assert found == made[::-1]


def test_a_signature_is_for_this_body_this_secret_and_now() -> None:
    header = signature(b"{}", secret="s", time_s=1000)
    assert is_signed(b"{}", header, secret="s", now_s=1100)
    assert not is_signed(b"{} ", header, secret="s", now_s=1100)
    assert not is_signed(b"{}", header, secret="t", now_s=1100)
    assert not is_signed(b"{}", header, secret="s", now_s=1301)
    for broken in ("", "t=1000", "v1=00", "t=x,v1=00", header.replace("t=1000", "t=1001"), "t=²,v1=00"):
        assert not is_signed(b"{}", broken, secret="s", now_s=1100)


def test_a_server_sends_what_the_one_before_it_left(fake: Served, receiver: Receiver, model_file: Path) -> None:
    with fake("hang") as client:
        add(client, receiver.url)
        job_id = start(client, model_file)
        until(lambda: client.get(f"/api/v1/jobs/{job_id}").json()["state"] == "running")
        services = services_of(client)
        assert services.webhooks is not None
        services.webhooks.stop()
        client.post(f"/api/v1/jobs/{job_id}/cancel")
        ended(client, job_id)
        assert receiver.got == []
    with fake("hang"):
        until(lambda: receiver.got)
    assert [told["job"]["state"] for told, *_ in receiver.got] == ["cancelled"]
