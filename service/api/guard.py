"""What every response carries, and the one kind of request that is refused before any route.

A page of another site can make a browser send requests to a server on this machine. Browsers say so in ``Origin``;
a request that changes something is only taken from pages of this very server, or from programs, which send none.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
}


class Guard:
    """Refuses changes that pages of other origins ask for; adds the security headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if (
            origin is not None
            and scope["method"] not in _SAFE_METHODS
            and urlsplit(origin).netloc != headers.get("host", "")
        ):
            content = {
                "type": "cross-origin",
                "title": "Forbidden",
                "status": 403,
                "detail": f"A page of {origin} asked for this change.",
                "code": "cross_origin",
                "hint": "Use the dashboard of this server, or a program that sends no Origin header.",
            }
            await JSONResponse(content, status_code=403, media_type="application/problem+json")(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                response = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    response.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_with_headers)
