"""Why a request is refused before it reaches its route."""

from __future__ import annotations

import math

from service.errors import ServiceError


class NotSignedIn(ServiceError):
    """Nothing says who asks, or what says so is unknown, revoked or expired."""

    status = 401
    code = "not_signed_in"
    hint = "Send a token as Authorization: Bearer …, or sign in at /sign-in. On the server: tessera token create"

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": 'Bearer realm="Tessera"'}


class ScopeTooSmall(ServiceError):
    """It is known who asks, and the token does not allow this."""

    status = 403
    code = "scope_too_small"
    hint = "Use a token with a larger scope; each includes the ones before it: read, submit, admin."


class CrossOrigin(ServiceError):
    """A page of another site asked for a change, or a browser that does not say which page did."""

    status = 403
    code = "cross_origin"
    hint = "Use the dashboard of this server, or a program that sends no Origin header."


class UnknownHost(ServiceError):
    """The request names a server that this one is not (RFC 9110, section 15.5.20)."""

    status = 421
    code = "unknown_host"
    hint = "Use the server's address in numbers, or add its name to TESSERA_ALLOWED_HOSTS."


class TooManyRequests(ServiceError):
    """``details["retry_after_s"]`` says when the next one is taken."""

    status = 429
    code = "too_many_requests"
    hint = "Wait as long as Retry-After says. The limits are settings: TESSERA_TOKEN_REQUESTS_PER_S and its like."

    def __init__(self, message: str, *, wait_s: float) -> None:
        super().__init__(message, details={"retry_after_s": math.ceil(wait_s)})

    @property
    def headers(self) -> dict[str, str]:
        return {"Retry-After": str(self.details["retry_after_s"])}
