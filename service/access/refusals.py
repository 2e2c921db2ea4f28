"""How a refusal is answered: browsers that want a page get one, or the way to sign in; programs get a problem."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from service.access.errors import NotSignedIn
from service.access.sessions import drop_cookie, session_id_of
from service.api.problems import problem_response
from service.dashboard.pages import error_page
from service.errors import status_of
from tuner.errors import TesseraError

SIGN_IN = "/sign-in"


def refuse(request: Request, error: TesseraError) -> Response:
    response = _answer(request, error)
    if isinstance(error, NotSignedIn) and session_id_of(request) is not None:
        drop_cookie(request, response)  # it is over: the browser is not to bring it again
    return response


def _answer(request: Request, error: TesseraError) -> Response:
    path: str = request.scope["path"]
    if "text/html" not in request.headers.get("accept", "") or path.startswith("/api/"):
        return problem_response(error)
    if isinstance(error, NotSignedIn) and request.method in ("GET", "HEAD"):
        query: str = request.scope["query_string"].decode("latin-1")
        here = path + (f"?{query}" if query else "")
        address = SIGN_IN if here == "/" else f"{SIGN_IN}?{urlencode({'next': here})}"
        return RedirectResponse(address, status_code=303, headers={"Cache-Control": "no-store"})
    page = error_page(error, status=status_of(error))
    page.headers.update(getattr(error, "headers", {}))
    return page


def own_address(text: str) -> str:
    """Where to go after signing in: an address of this server, else the start page. Never to another site."""
    parts = urlsplit(text)
    plain = text.isascii() and text.isprintable() and "\\" not in text
    own = text.startswith("/") and not text.startswith("//") and not parts.scheme and not parts.netloc
    return text if plain and own else "/"
