"""The OpenAPI document: FastAPI's, with every operation's examples, and the problems that it answers with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute

from service.access import policy
from service.access.errors import CrossOrigin, NotSignedIn, ScopeTooSmall, TooManyRequests, UnknownHost
from service.access.scopes import AccessScope
from service.api import codes
from service.api.examples import EXAMPLES, PATH_VALUES, Example
from service.errors import DatabaseUnavailable, StorageFull

ADDRESS = "/api/v1/openapi.json"
_SAFE = "get"
_DESCRIPTION = """Tune ONNX models for a device: upload a model, start a job, follow it, download the bundle.

Requests carry a token: `Authorization: Bearer tss_…`. Errors are RFC 9457 problems with a stable `code` and a \
`hint`. Lists are pages: `limit` says how many items, `cursor` \
is the `next_cursor` of the page before. Units are in the names (`_us`, `_s`, `_bytes`); times are RFC 3339 in UTC."""
_TAGS = {
    "models": "Uploaded ONNX files and samples, and what is known of a model before any search.",
    "targets": "What code can be generated for, and the machines that can measure it.",
    "jobs": "Tune a model for a target within a budget: start, follow, cancel, and read what came out.",
    "artifacts": "Files that jobs produced, and the key that bundles are signed with.",
    "records": "What was measured, out of one Tessera and into another.",
    "cost models": "The cost model of each target: versions, rank quality, and going back.",
    "webhooks": "Addresses that are told when a job has ended.",
    "storage": "What is kept, for how long, and deleting what is outdated.",
    "access": "Tokens: who may do what, and what they did.",
    "health": "For whoever watches the server.",
}
_SCHEMES = {
    "token": {"type": "http", "scheme": "bearer", "description": "From `tessera token create`, or `POST /tokens`"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "tessera_8765",
        "description": "A browser that has signed in; the number is the server's port",
    },
}
# What says of a schema that some values are refused: anything beyond a plain string, or none.
_UNCHECKED = {"type", "title", "description", "default", "anyOf", "example"}


def settings() -> dict[str, Any]:
    """What FastAPI takes for its document."""
    return {
        "title": "Tessera",
        "summary": "Self-hosted autotuning for machine-learning models",
        "description": _DESCRIPTION,
        "openapi_url": ADDRESS,
        "openapi_tags": [{"name": name, "description": about} for name, about in _TAGS.items()],
        "servers": [{"url": "/", "description": "The server that this document comes from"}],
        "contact": {"name": "Whoever runs this server"},
        "license_info": {"name": "Apache License 2.0", "identifier": "Apache-2.0"},
        "generate_unique_id_function": _name,
    }


def install(app: FastAPI) -> None:
    """Make the app answer with our document; to be called once all routes are there."""
    made: dict[str, Any] = {}

    def openapi() -> dict[str, Any]:
        if not made:
            made.update(_complete(FastAPI.openapi(app)))
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation, in the document's order."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _name(route: APIRoute) -> str:
    return route.name


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    document["components"]["securitySchemes"] = _SCHEMES
    document["security"] = []
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = codes.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(problem.pop("$defs"))
    schemas["Problem"] = problem
    for method, path, operation in operations(document):
        _add_access(method, path, operation)
        _add_problems(method, operation)
        _add_examples(operation, EXAMPLES.get(operation["operationId"], Example()))
    return document


def _add_access(method: str, path: str, operation: dict[str, Any]) -> None:
    """The scope that it needs, and what the gate answers with. Its roles stand where those of OAuth would."""
    need = policy.needed(method.upper(), path)
    responses = operation["responses"]
    codes.add_code(responses, UnknownHost)
    operation["security"] = []
    if not isinstance(need, AccessScope):
        return
    operation["security"] = [{name: [need.value]} for name in _SCHEMES]
    operation["description"] += f" Needs the scope `{need.value}`."
    codes.add_code(responses, NotSignedIn)
    codes.add_code(responses, TooManyRequests)
    if need is not AccessScope.READ:
        codes.add_code(responses, ScopeTooSmall)


def _add_problems(method: str, operation: dict[str, Any]) -> None:
    """Beside what the route raises: what FastAPI, the guard, and a fault of ours answer with."""
    responses = operation["responses"]
    if codes.MEDIA_TYPE not in responses.get("422", {}).get("content", {}):
        responses.pop("422", None)  # FastAPI's own, also where nothing can be refused
    json_body = "application/json" in operation.get("requestBody", {}).get("content", {})
    if json_body:
        codes.add_code(responses, "bad_request")
    if json_body or any(_is_checked(each["schema"]) for each in operation.get("parameters", [])):
        codes.add_code(responses, "invalid_request")
    if method != _SAFE:
        codes.add_code(responses, CrossOrigin)
        codes.add_code(responses, StorageFull)
    codes.add_code(responses, "internal_error")
    codes.add_code(responses, DatabaseUnavailable)
    operation["responses"] = dict(sorted(responses.items()))


def _is_checked(schema: dict[str, Any]) -> bool:
    options = schema.get("anyOf", [schema])
    return any(option.get("type") not in ("string", "null") or option.keys() - _UNCHECKED for option in options)


def _add_examples(operation: dict[str, Any], example: Example) -> None:
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            parameter["example"] = PATH_VALUES[parameter["name"]]
    _put(operation.get("requestBody", {}), example.request)
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            _put(response, example.answer)
        elif status in example.others:
            _put(response, example.others[status])


def _put(body: dict[str, Any], examples: Any) -> None:
    for media_type, content in body.get("content", {}).items():
        # OpenAPI 3.1 has no schema for the items of a stream: it is text.
        if content.pop("itemSchema", None) is not None:
            content["schema"] = {"type": "string"}
        if media_type in examples:
            content["example"] = examples[media_type]
