"""The tokens that a server has without anybody making them, at its start."""

from __future__ import annotations

from sqlalchemy import and_, update

from service.access.local_token import read_local_token, write_local_token
from service.access.scopes import AccessScope
from service.access.tokens import add_token, find, keep_bootstrap, new_secret
from service.database import Database
from service.database.base import now
from service.database.tables import AccessToken
from service.settings import Settings


def keep_tokens(settings: Settings, database: Database) -> str:
    """Bring the tokens of the data directory and of the environment into the database; the local one's id.

    To be called by the owner of the data directory. Raises `WeakToken`.
    """
    keep_bootstrap(database, settings.bootstrap_token.get_secret_value() if settings.bootstrap_token else None)
    secret = read_local_token(settings)
    with database.read() as session:  # as a rule there is nothing to write, which a full disk would refuse
        token = find(session, secret) if secret is not None else None
    if token is not None and token.revoked_at is None:
        return token.id
    with database.write() as session:
        if secret is None or token is not None:
            secret = new_secret()
            # The file was lost, or others could read it: what was in it ends. On PostgreSQL, which several
            # installations may share, one cannot tell whose local tokens the others are.
            if database.is_sqlite:
                earlier = and_(AccessToken.kind == "local", AccessToken.revoked_at.is_(None))
                session.execute(update(AccessToken).where(earlier).values(revoked_at=now()))
            write_local_token(settings, secret)
        return add_token(session, secret, name="local", kind="local", scope=AccessScope.ADMIN).id
