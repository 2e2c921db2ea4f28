"""What every page shares: the templates, the security headers, and errors in the style of the pages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from inspect import isawaitable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.exceptions import HTTPException

from service import __version__
from service.access.principal import DEFAULT_PROJECT, Principal
from service.api.dependencies import get_services
from service.dashboard import figures, ranking, tiles, verdict
from service.errors import Invalid, NotFound, status_of
from tuner.errors import TesseraError

_HERE = Path(__file__).resolve().parent
STATIC_DIR = _HERE / "static"
# Everything comes from this server; no inline script or style, no frame around a page, forms only back to us.
CONTENT_POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
services_of = get_services
"""What whoever asks for a page may see."""
_log = logging.getLogger("tessera")
_FAILED = TesseraError(
    "The server failed on this page.", hint="The server's log has the cause. Please report it with the log."
)
# Of whoever asks for the page; none on a server that nobody has divided, where it goes without saying.
_project: ContextVar[str | None] = ContextVar("project", default=None)
_TITLES = {404: "Not found", 405: "Not possible", 409: "Not possible now", 413: "Too large"}


def render(
    template: str, context: dict[str, Any], *, status: int = 200, here: str = "", policy: str = CONTENT_POLICY
) -> HTMLResponse:
    """A page; ``here`` marks the entry of the navigation that it belongs to."""
    page = _templates.get_template(template).render({"here": here, "project": _project.get(), **context})
    headers = {"Content-Security-Policy": policy, **SECURITY_HEADERS}
    return HTMLResponse(page, status_code=status, headers=headers)


def error_page(error: TesseraError, *, status: int) -> HTMLResponse:
    """An error in the style of the pages: what happened, why, and what to do."""
    title = _TITLES.get(status, "Something went wrong" if status >= 500 else "That did not work")
    return render("error.html", {"error": error, "status": status, "title": title}, status=status)


def install_error_pages(app: FastAPI) -> None:
    """Answer browsers with a page where nothing is; programs, and everything under /api, keep their problems.

    To be called after the handlers for problems are installed.
    """
    answer_problem = app.exception_handlers[HTTPException]

    async def answer(request: Request, error: Exception) -> Response:
        wants_page = "text/html" in request.headers.get("accept", "") and not request.url.path.startswith("/api/")
        if wants_page and isinstance(error, HTTPException) and error.status_code == 404:
            return error_page(PageNotFound(f"There is nothing at {request.url.path}."), status=404)
        answered = answer_problem(request, error)
        return await answered if isawaitable(answered) else answered

    app.add_exception_handler(HTTPException, answer)


class PageNotFound(NotFound):
    code = "page_not_found"
    hint = "The navigation above leads to every page."


class PageRoute(APIRoute):
    """A route whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_with_pages(request: Request) -> Response:
            principal: Principal | None = request.state.principal
            if principal is not None and principal.project != DEFAULT_PROJECT:
                _project.set(principal.project)
            try:
                return await handle(request)
            except TesseraError as error:
                return error_page(error, status=status_of(error))
            except RequestValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"][1:])
                return error_page(Invalid(f"{field}: {first['msg']}"), status=422)
            except HTTPException:
                raise
            except Exception:
                _log.exception("The page %s failed", request.url.path)
                return error_page(_FAILED, status=500)

        return handle_with_pages


def by_count(operators: object) -> list[tuple[str, int]]:
    """Operators with how many nodes use them, the most frequent first."""
    if not isinstance(operators, dict):
        return []
    return sorted(((str(name), int(nodes)) for name, nodes in operators.items()), key=lambda each: (-each[1], each[0]))


def _dims(shape: list[int | str | None]) -> str:
    return "×".join("?" if size is None else str(size) for size in shape)


def _tile_text(knobs: dict[str, object] | None) -> str:
    return "  ".join(axis.text for axis in tiles.axes(knobs))


def _make_templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(figures.FILTERS)
    environment.filters.update(
        dims=_dims,
        tile_text=_tile_text,
        other_knobs=tiles.other_knobs,
        times_faster=verdict.times_faster,
        of_hundred=ranking.of_hundred,
    )
    environment.globals.update(static=lambda name: f"/static/{name}", tiles=tiles.diagram, version=__version__)
    return environment


_templates = _make_templates()
