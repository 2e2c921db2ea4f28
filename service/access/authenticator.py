"""Who a credential is. The database is asked once a second for each, however many requests and streams come with it."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from datetime import datetime, timedelta

from anyio.to_thread import run_sync
from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from service.access.principal import Credential, Principal
from service.access.scopes import AccessScope
from service.database import Database
from service.database.base import now
from service.database.tables import AccessToken, BrowserSession
from service.errors import ServiceError

# Within so much a token that another process revoked ends here, streams included.
FRESH_S = 1.0
_USE_NOTED_EVERY = timedelta(minutes=1)
_FORGET_AFTER_S = 3600.0


class Authenticator:
    """Looks that are shared by whoever asks about the same within a second. Belongs to one event loop."""

    def __init__(self, database: Database, *, fresh_s: float = FRESH_S) -> None:
        self._database = database
        self._fresh_s = fresh_s
        self._looks: dict[Credential, tuple[float, asyncio.Task[Principal | None]]] = {}
        self._stale_before = 0.0

    async def identify(self, credential: Credential) -> Principal | None:
        """None for a secret that nobody has, or that was revoked or has expired."""
        moment = time.monotonic()
        begun, look = self._looks.get(credential, (0.0, None))
        if look is None or begun < max(moment - self._fresh_s, self._stale_before):
            self._forget_before(moment - _FORGET_AFTER_S)
            self._looks.pop(credential, None)  # an entry's place says when it was made
            look = asyncio.create_task(run_sync(self.look_up, credential))
            self._looks[credential] = moment, look
        try:
            principal = await asyncio.shield(look)  # a client that leaves takes it from no other
        except Exception:
            self._drop(credential, look)
            raise
        if principal is None:
            self._drop(credential, look)
            return None
        return principal if principal.expires_at is None or principal.expires_at > now() else None

    async def still_allows(self, principal: Principal) -> bool:
        """For what goes on for long: whether the token or session that it began with is still good."""
        return principal.credential is None or await self.identify(principal.credential) is not None

    def is_known(self, credential: Credential) -> bool:
        """Whether it was good within the last hour. Guesses never were."""
        look = self._looks.get(credential, (0.0, None))[1]
        return look is not None and look.done() and not look.cancelled() and look.exception() is None

    def forget(self) -> None:
        """To be called when a token or session has ended here: the next request asks the database. From any thread."""
        self._stale_before = time.monotonic()

    def look_up(self, credential: Credential) -> Principal | None:
        """What the database says; the token's use is noted, once a minute at most."""
        moment = now()
        with self._database.read() as session:
            found = _find(session, credential)
        if found is None:
            return None
        token, ends = found
        expires_at = min((end for end in (token.expires_at, ends) if end is not None), default=None)
        if token.revoked_at is not None or (expires_at is not None and expires_at <= moment):
            return None
        if token.last_used_at is None or token.last_used_at <= moment - _USE_NOTED_EVERY:
            self._note_use(token.id, moment)
        return Principal(
            name=token.name,
            scope=AccessScope(token.scope),
            project=token.project,
            token_id=token.id,
            credential=credential,
            expires_at=expires_at,
        )

    def _note_use(self, token_id: str, moment: datetime) -> None:
        # With a full disk people are to see that it is full.
        with contextlib.suppress(ServiceError, SQLAlchemyError), self._database.write() as session:
            session.execute(update(AccessToken).where(AccessToken.id == token_id).values(last_used_at=moment))

    def _forget_before(self, then: float) -> None:
        for credential, (begun, _) in list(self._looks.items()):
            if begun >= then:
                return
            del self._looks[credential]

    def _drop(self, credential: Credential, look: asyncio.Task[Principal | None]) -> None:
        if self._looks.get(credential, (0.0, None))[1] is look:
            del self._looks[credential]


def _find(session: Session, credential: Credential) -> tuple[AccessToken, datetime | None] | None:
    """The token, and when its session ends. Rows are found by a SHA-256, so that how long it takes tells nothing of a
    secret; what was found is compared in constant time."""
    if credential.kind == "token":
        token = session.scalar(select(AccessToken).where(AccessToken.secret_sha256 == credential.sha256))
        return (token, None) if token is not None and _same(token.secret_sha256, credential) else None
    query = (
        select(BrowserSession, AccessToken)
        .join(AccessToken, AccessToken.id == BrowserSession.token_id)
        .where(BrowserSession.id_sha256 == credential.sha256)
    )
    row = session.execute(query).one_or_none()
    if row is None or not _same(row[0].id_sha256, credential):
        return None
    return row[1], row[0].expires_at


def _same(stored: str, credential: Credential) -> bool:
    return hmac.compare_digest(stored, credential.sha256)
