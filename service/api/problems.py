"""Every error as RFC 9457 ``application/problem+json`` with a stable ``code`` and a ``hint``."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi_problem.error import Problem
from fastapi_problem.handler import ExceptionHandler, add_exception_handler, new_exception_handler
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from service.errors import ServiceError, status_of
from tuner.errors import TesseraError

_CODES = {
    400: ("bad_request", "The body cannot be read: /docs shows an example."),
    404: ("route_not_found", "The routes are listed under /docs."),
    405: ("method_not_allowed", "The Allow header names the methods of this route."),
    406: ("not_acceptable", "Leave the Accept header out."),
    413: ("too_large", "Send less."),
    415: ("unsupported_media_type", "Send JSON, or the raw bytes of the file."),
    416: ("range_not_satisfiable", "Ask for bytes that the file has."),
}


def problem(error: TesseraError) -> Problem:
    """An error of ours as a problem; ``details`` become members beside ``code`` and ``hint``."""
    status = status_of(error)
    extras: dict[str, Any] = {"details": error.details} if error.details else {}
    return Problem(
        title=HTTPStatus(status).phrase,
        type_=error.code.replace("_", "-"),
        detail=error.message,
        status=status,
        headers=dict(error.headers) if isinstance(error, ServiceError) else None,
        code=error.code,
        hint=error.hint,
        **extras,
    )


def problem_response(error: TesseraError) -> JSONResponse:
    """The answer where no route, and no handler of exceptions, is reached."""
    told = problem(error)
    return JSONResponse(
        told.marshal(), status_code=told.status, headers=told.headers, media_type="application/problem+json"
    )


def install(app: FastAPI, logger: logging.Logger) -> None:
    """Make the app answer every exception with a problem."""
    handler = new_exception_handler(
        logger=logger,
        handlers={TesseraError: _on_tessera_error, Exception: _on_unexpected},
        http_exception_handler=_on_http_exception,
        request_validation_handler=_on_validation_error,
    )
    add_exception_handler(app, handler, generic_swagger_defaults=False)

    async def on_tessera_error(request: Request, error: Exception) -> Response:
        return handler(request, error)

    async def on_disconnect(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # nobody is there to read it, and it is no fault of the server's

    app.add_exception_handler(TesseraError, on_tessera_error)
    app.add_exception_handler(ClientDisconnect, on_disconnect)


def _on_tessera_error(_handler: ExceptionHandler, _request: Request, error: TesseraError) -> Problem:
    return problem(error)


def _on_unexpected(handler: ExceptionHandler, request: Request, error: Exception) -> Problem:
    if isinstance(error, HTTPException):
        return _on_http_exception(handler, request, error)
    if isinstance(error, RequestValidationError):
        return _on_validation_error(handler, request, error)
    return Problem(
        title="Internal Server Error",
        type_="internal-error",
        detail="The server failed on this request.",
        status=500,
        code="internal_error",
        hint="The server's log has the cause. Please report it.",
    )


def _on_http_exception(_handler: ExceptionHandler, request: Request, error: HTTPException) -> Problem:
    code, hint = _CODES.get(error.status_code, ("http_error", "The interface is described under /docs."))
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {request.url.path}."
    elif error.status_code == 405:
        detail = f"{request.method} is not possible at {request.url.path}."
    return Problem(
        title=HTTPStatus(error.status_code).phrase,
        type_=code.replace("_", "-"),
        detail=detail,
        status=error.status_code,
        headers=dict(error.headers or {}),
        code=code,
        hint=hint,
    )


def _on_validation_error(_handler: ExceptionHandler, _request: Request, error: RequestValidationError) -> Problem:
    errors = [{"loc": list(e["loc"]), "msg": e["msg"], "type": e["type"]} for e in error.errors()]
    fields = [".".join(str(part) for part in e["loc"] if part not in ("body", "query", "path")) for e in errors]
    told = "; ".join(f"{name}: {e['msg']}" if name else e["msg"] for name, e in zip(fields, errors, strict=True))
    budget = {"trials", "time_limit_s", "memory_limit_bytes"} & set(fields)
    code, hint = ("invalid_request", "Correct the named fields; /docs shows an example.")
    if budget:
        code, hint = "invalid_budget", "trials, time_limit_s and memory_limit_bytes are positive numbers."
    return Problem(
        title="Unprocessable Content",
        type_=code.replace("_", "-"),
        detail=told,
        status=422,
        code=code,
        hint=hint,
        errors=json.loads(json.dumps(errors, default=str)),
    )
