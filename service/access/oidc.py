"""Signing in with OpenID Connect: a provider says who somebody is, and a claim of it which scope they have.

The authorization code flow with PKCE (OpenID Connect Core 1.0, RFC 7636, RFC 9700). Nothing is kept between the two
requests of a browser but its own cookie.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode, urlsplit
from uuid import NAMESPACE_URL, uuid5

import httpx2

from service.access.errors import NotSignedIn
from service.access.principal import sha256_of
from service.access.rights import parse_rights
from service.access.scopes import AccessScope
from service.access.tokens import new_secret
from service.database import Database
from service.database.base import now
from service.database.tables import AccessToken
from service.errors import ServiceError
from service.settings import Settings

ATTEMPT_LIFETIME_S = 600
# Signed with a key that only the provider has. HMAC, whose key would be the client's secret, is none of them.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512")
_LEEWAY_S = 60
_TIMEOUT_S = 10.0
_FRESH_S = 600.0
_MOST_NAME = 100


class ProviderUnavailable(ServiceError):
    """The provider does not answer, or not as one does."""

    status = 502
    code = "oidc_unavailable"
    hint = "Check TESSERA_OIDC_ISSUER, and the client's id and secret at the provider. Tokens still sign in."


@dataclass(frozen=True)
class Attempt:
    """One browser's attempt to sign in. Its cookie holds ``secret``, 256 random bits, and all that the provider is told
    is made from that: whoever comes back with another state, or another's code, comes from elsewhere."""

    secret: str

    @classmethod
    def new(cls) -> Attempt:
        return cls(secrets.token_urlsafe(32))

    @property
    def state(self) -> str:
        return self._made("state")

    @property
    def nonce(self) -> str:
        return self._made("nonce")

    @property
    def verifier(self) -> str:
        return self._made("verifier")

    @property
    def challenge(self) -> str:
        return _base64(hashlib.sha256(self.verifier.encode()).digest())

    def _made(self, what: str) -> str:
        return _base64(hmac.digest(self.secret.encode(), what.encode(), "sha256"))


@dataclass(frozen=True, kw_only=True)
class Person:
    """Who signed in. ``id`` is the same each time, whatever they are called."""

    id: str
    name: str
    scope: AccessScope
    project: str


class Provider:
    """The one of the settings; its own description is asked for every ten minutes at most. Used by several threads."""

    def __init__(self, settings: Settings) -> None:
        assert settings.oidc_issuer is not None
        assert settings.oidc_client_id is not None
        self._issuer = settings.oidc_issuer
        self._client_id = settings.oidc_client_id
        secret = settings.oidc_client_secret
        self._client_secret = secret.get_secret_value() if secret else ""
        self._claim = settings.oidc_claim
        self._rights = parse_rights(settings.oidc_scopes or "")
        self._described: tuple[float, dict[str, Any]] | None = None
        self.name = urlsplit(self._issuer).netloc

    def address(self, attempt: Attempt, *, back_to: str) -> str:
        """Where the browser goes to sign in, and from there to ``back_to``. Raises `ProviderUnavailable`."""
        with self._http() as http:
            described = self._description(http)
        offered = described.get("scopes_supported", ["profile", "email"])
        query = {
            "response_type": "code",
            "client_id": self._client_id,
            "redirect_uri": back_to,
            "scope": " ".join(["openid", *(each for each in ("profile", "email", "groups") if each in offered)]),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        address = _text(described, "authorization_endpoint")
        return f"{address}{'&' if urlsplit(address).query else '?'}{urlencode(query)}"

    def person(self, attempt: Attempt, code: str, *, back_to: str) -> Person:
        """Who came back with that code. Raises `NotSignedIn`, and `ProviderUnavailable`."""
        with self._http() as http:
            described = self._description(http)
            told = self._redeem(http, described, attempt, code, back_to)
            keys = _json(http.get(_text(described, "jwks_uri")))
            claims = self._claims(_text(told, "id_token"), keys, attempt, issuer=_text(described, "issuer"))
            if self._claim not in claims and "userinfo_endpoint" in described:
                claims = {**self._userinfo(http, described, told, claims["sub"]), **claims}
        name = str(claims.get("email") or claims.get("preferred_username") or claims["sub"])
        name = f"{''.join(filter(str.isprintable, name))[: _MOST_NAME // 2]} ({self.name})"[:_MOST_NAME]
        right = self._right(claims)
        if right is None:
            raise NotSignedIn(
                f"{name} has no access here.", hint="Ask for a group that TESSERA_OIDC_SCOPES gives a scope."
            )
        scope, project = right
        person_id = str(uuid5(NAMESPACE_URL, f"{self._issuer} {claims['sub']}"))
        return Person(id=person_id, name=name, scope=scope, project=project)

    def _http(self) -> _Http:
        return _Http(timeout=_TIMEOUT_S, follow_redirects=False)

    def _description(self, http: httpx2.Client) -> dict[str, Any]:
        moment = time.monotonic()
        if self._described is None or moment - self._described[0] > _FRESH_S:
            address = f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"
            described = _json(http.get(address))
            if _text(described, "issuer").rstrip("/") != self._issuer.rstrip("/"):
                raise ProviderUnavailable(f"{address} is of another issuer: {described['issuer']}.")
            self._described = moment, described
        return self._described[1]

    def _redeem(
        self, http: httpx2.Client, described: Mapping[str, Any], attempt: Attempt, code: str, back_to: str
    ) -> dict[str, Any]:
        """The provider's answer to a code: tokens of its own. Raises `NotSignedIn` for a code that is none."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": back_to,
            "code_verifier": attempt.verifier,
        }
        methods = described.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        auth = httpx2.Auth()  # none
        if not self._client_secret:
            form["client_id"] = self._client_id
        elif "client_secret_basic" in methods:
            # RFC 6749, section 2.3.1: both are encoded as in a form first.
            auth = httpx2.BasicAuth(quote(self._client_id, safe=""), quote(self._client_secret, safe=""))
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        answer = http.post(_text(described, "token_endpoint"), data=form, auth=auth)
        if answer.status_code in (400, 403):
            raise NotSignedIn("The provider does not know the code.", hint="Sign in once more.")
        return _json(answer)

    def _claims(self, id_token: str, keys: Any, attempt: Attempt, *, issuer: str) -> dict[str, Any]:
        """What the provider signed (OpenID Connect Core, section 3.1.3.7)."""
        # Here, so that a server without a provider does not load it.
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        expected = jwt.JWTClaimsRegistry(
            leeway=_LEEWAY_S,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": self._client_id},
            azp={"value": self._client_id},
            nonce={"essential": True, "value": attempt.nonce},
            sub={"essential": True},
            exp={"essential": True},
            iat={"essential": True},
        )
        try:
            claims = jwt.decode(id_token, KeySet.import_key_set(keys), algorithms=_ALGORITHMS).claims
            expected.validate(claims)
        except (JoseError, ValueError, KeyError, TypeError) as error:
            raise NotSignedIn(
                f"What the provider says cannot be believed ({type(error).__name__}).", hint="Sign in once more."
            ) from error
        return claims

    def _userinfo(
        self, http: httpx2.Client, described: Mapping[str, Any], told: Mapping[str, Any], subject: str
    ) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {_text(told, 'access_token')}"}
        claims = _json(http.get(_text(described, "userinfo_endpoint"), headers=headers))
        if claims.get("sub") != subject:
            raise NotSignedIn("The provider tells of somebody else.", hint="Sign in once more.")
        return claims

    def _right(self, claims: Mapping[str, Any]) -> tuple[AccessScope, str] | None:
        """The first of those with the largest scope that the claim's values have."""
        value = claims.get(self._claim, [])
        held = {str(each) for each in value} if isinstance(value, list) else {str(value)}
        found = [right for given, right in self._rights.items() if given == "*" or given in held]
        return max(found, key=lambda right: list(AccessScope).index(right[0]), default=None)


def keep_person(database: Database, person: Person, *, lifetime_s: float) -> str:
    """The id of the token whose rights the person has, in sessions only: nobody knows its secret. It has their scope
    and project of now, and ends when they have not signed in for so long."""
    with database.write() as session:
        token = session.get(AccessToken, person.id)
        if token is None:
            token = AccessToken(id=person.id, kind="made", secret_sha256=sha256_of(new_secret()))
            session.add(token)
        token.name, token.scope, token.project = person.name, person.scope.value, person.project
        token.expires_at, token.revoked_at = now() + timedelta(seconds=lifetime_s), None
    return person.id


class _Http(httpx2.Client):
    """A client whose failures are the provider's."""

    def request(self, *arguments: Any, **options: Any) -> httpx2.Response:
        try:
            return super().request(*arguments, **options)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ProviderUnavailable(f"The provider does not answer ({type(error).__name__}).") from error


def _json(answer: httpx2.Response) -> dict[str, Any]:
    try:
        told = answer.json() if answer.status_code == 200 else None
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise ProviderUnavailable(f"{answer.url.copy_with(query=None)} answered {answer.status_code}.")
    return told


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    if not isinstance(value, str):
        raise ProviderUnavailable(f"The provider does not say its {name}.")
    return value


def _base64(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
