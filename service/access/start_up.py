"""What has to be right before a server listens: who can reach it, and who can read its data."""

from __future__ import annotations

from service.access.tokens import count_shared, require_usable
from service.database import Database
from service.errors import ServiceError
from service.listening import is_loopback
from service.settings import Settings


class AccessNotSetUp(ServiceError):
    """Others could reach the server, and nobody was given a token."""

    code = "access_not_set_up"
    hint = (
        "Make a token (tessera token create NAME --scope admin) or give one (TESSERA_BOOTSTRAP_TOKEN), listen on "
        "127.0.0.1, or set TESSERA_AUTHENTICATION=proxy where a proxy asks who it is."
    )


def require_access(settings: Settings, database: Database) -> None:
    """On a database of the newest revision. Raises `WeakToken`, and `AccessNotSetUp` where others reach the address."""
    if settings.bootstrap_token is not None:
        require_usable(database, settings.bootstrap_token.get_secret_value())
        return
    others_sign_in = settings.authentication == "proxy" or settings.oidc_issuer
    if is_loopback(settings.host) or others_sign_in or count_shared(database):
        return
    raise AccessNotSetUp(f"{settings.host} can be reached from other machines, and there is no token for them.")
