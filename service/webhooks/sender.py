"""The thread of the server that sends what is due to webhooks, and tries again later where that fails."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import httpx2
from sqlalchemy import select, update

from service import __version__
from service.database import Database
from service.database.base import now
from service.database.tables import Webhook, WebhookDelivery
from service.errors import NotFound
from service.queries.jobs import get_job
from service.webhooks.addresses import AddressRefused, Reach
from service.webhooks.post import WITHIN_S, post
from service.webhooks.signature import HEADER, signature

RETRY_AFTER_S = (10.0, 60.0, 300.0, 1800.0, 7200.0, 21600.0)
"""Behind each attempt that failed; after the last of them a message is given up."""
_LOOK_EVERY_S = 1.0
_AT_A_TIME = 20
_STOP_WITHIN_S = 15.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Due:
    id: int
    job_id: str | None
    event: str
    attempts: int
    url: str
    secret: str
    project: str


class WebhookSender:
    """Messages are sent at least once: one whose answer was lost is sent again, with the same ``delivery``."""

    def __init__(self, database: Database, reach: Reach, *, every_s: float = _LOOK_EVERY_S) -> None:
        self._database = database
        self._reach = reach
        self._every_s = every_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context(trust_env=False)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(_STOP_WITHIN_S)

    def _run(self) -> None:
        while not self._stopping.wait(self._every_s):
            try:
                self.send_due()
            except Exception:
                log.exception("webhooks could not be looked after; trying again")

    def send_due(self) -> int:
        """Send what is due; how many messages that were."""
        query = (
            select(
                WebhookDelivery.id,
                WebhookDelivery.job_id,
                WebhookDelivery.event,
                WebhookDelivery.attempts,
                Webhook.url,
                Webhook.secret,
                Webhook.project,
            )
            .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
            .where(WebhookDelivery.state == "pending", WebhookDelivery.due_at <= now())
            .order_by(WebhookDelivery.due_at)
            .limit(_AT_A_TIME)
        )
        with self._database.read() as session:
            due = [_Due(*row) for row in session.execute(query)]
        for each in due:
            if self._stopping.is_set():
                break
            self._send(each)
        return len(due)

    def _send(self, due: _Due) -> None:
        status, error = None, None
        try:
            body = self._body(due)
            headers = {
                "Content-Type": "application/json",
                "User-Agent": f"Tessera/{__version__}",
                HEADER: signature(body, secret=due.secret, time_s=int(time.time())),
            }
            status = post(due.url, body, headers, reach=self._reach, tls=self._tls)
            if not 200 <= status < 300:
                error = f"it answered {status}"
        except NotFound:
            error = "the job is gone"
        except AddressRefused as refused:
            error = str(refused)[:300]
        except TimeoutError:
            error = f"it did not answer within {WITHIN_S:.0f} s"
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as failure:
            error = f"{type(failure).__name__}: {failure}"[:300]
        self._settle(due, status=status, error=error)

    def _body(self, due: _Due) -> bytes:
        told: dict[str, object] = {"event": due.event, "delivery": due.id}
        if due.job_id is not None:
            told["job"] = get_job(self._database.of_project(due.project), due.job_id).model_dump(mode="json")
        return json.dumps(told, sort_keys=True).encode()

    def _settle(self, due: _Due, *, status: int | None, error: str | None) -> None:
        attempts = due.attempts + 1
        values: dict[str, object] = {"attempts": attempts, "status": status, "error": error}
        if error is None:
            values |= {"state": "delivered", "ended_at": now()}
        elif attempts > len(RETRY_AFTER_S):
            values |= {"state": "failed", "ended_at": now()}
        else:
            values |= {"due_at": now() + timedelta(seconds=RETRY_AFTER_S[attempts - 1])}
        with self._database.write() as session:
            session.execute(update(WebhookDelivery).where(WebhookDelivery.id == due.id).values(**values))
