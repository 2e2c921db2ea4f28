"""What every response carries, and the requests that are refused before anybody asks whose they are.

A page of another site can make a browser send requests to a server on this machine. Browsers say so in ``Origin``;
a request that changes something is only taken from pages of this very server, or from programs, which send none. And
it is taken only under a name of this server (`service.access.hosts`).
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.access.errors import CrossOrigin, UnknownHost
from service.access.gate import SAFE_METHODS
from service.access.hosts import AllowedHosts
from service.api.problems import problem_response
from service.errors import ServiceError

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


class Guard:
    """Refuses changes that pages of other origins ask for, and names that are not ours; adds the security headers."""

    def __init__(self, app: ASGIApp, *, hosts: AllowedHosts) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = self._problem(scope["method"], Headers(scope=scope))
        answer = self._app if refused is None else problem_response(refused)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                response = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    response.setdefault(name, value)
            await send(message)

        await answer(scope, receive, send_with_headers)

    def _problem(self, method: str, headers: Headers) -> ServiceError | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._hosts.allow(host):
            return UnknownHost(f"{host[:100]!r} is no name of this server.")
        if origin is not None and method not in SAFE_METHODS and _netloc(origin) != host:
            return CrossOrigin(f"A page of {origin[:200]} asked for this change.")
        return None


def _netloc(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
