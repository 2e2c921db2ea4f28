"""What a running server needs to know of who may do what, in one value."""

from __future__ import annotations

from dataclasses import dataclass

from service.access.authenticator import Authenticator
from service.access.errors import TooManyRequests
from service.access.oidc import Provider
from service.access.principal import Credential, Principal
from service.access.rate_limits import RateLimits, network_of
from service.access.sign_in_links import SignInLinks
from service.database import Database
from service.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Access:
    """One running server's. Belongs to one event loop."""

    database: Database
    authenticator: Authenticator
    limits: RateLimits
    links: SignInLinks
    local_token_id: str
    behind_proxy: bool
    provider: Provider | None

    @classmethod
    def of(cls, settings: Settings, database: Database, *, local_token_id: str) -> Access:
        return cls(
            database=database,
            authenticator=Authenticator(database),
            limits=RateLimits(settings),
            links=SignInLinks(),
            local_token_id=local_token_id,
            behind_proxy=settings.authentication == "proxy",
            provider=Provider(settings) if settings.oidc_issuer else None,
        )

    async def identify(self, credential: Credential, address: str) -> Principal | None:
        """Who a credential is. After too many wrong ones from an address only those that were good before are looked at
        (`TooManyRequests`): whoever works there is not locked out, and no guess is told to be right or wrong."""
        if not self.authenticator.is_known(credential):
            self.refuse_guessing(address)
        principal = await self.authenticator.identify(credential)
        if principal is None:
            self.note_failure(address)
        return principal

    def refuse_guessing(self, address: str) -> None:
        if wait_s := self.limits.failures.wait_s(network_of(address)):
            raise TooManyRequests("Too many failed sign-ins from your address.", wait_s=wait_s)

    def note_failure(self, address: str) -> None:
        self.limits.failures.take(network_of(address))
