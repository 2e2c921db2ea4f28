"""The OpenAPI document, and what goes over the wire held against it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from service.api import openapi
from service.api.codes import MEDIA_TYPE as PROBLEM
from service.app import create_app

API = "/api/v1/"


@dataclass(frozen=True)
class Operation:
    """One method of one path; ``described`` is its object in the document."""

    id: str
    method: str
    path: str
    described: dict[str, Any]

    @property
    def responses(self) -> dict[str, Any]:
        return self.described["responses"]

    def codes(self, status: int | str) -> set[str]:
        """The codes of problems that it can answer with at a status."""
        problems = self.responses.get(str(status), {}).get("content", {}).get(PROBLEM, {})
        return set(problems.get("examples", {}))


@cache
def document() -> dict[str, Any]:
    return create_app(engine=False).openapi()


@cache
def operations() -> tuple[Operation, ...]:
    return tuple(
        Operation(described["operationId"], method.upper(), path, described)
        for method, path, described in openapi.operations(document())
    )


@cache
def _patterns() -> tuple[tuple[re.Pattern[str], Operation], ...]:
    return tuple((re.compile(re.sub(r"\{\w+\}", "[^/]+", each.path)), each) for each in operations())


def operation_of(method: str, path: str) -> Operation | None:
    """What a request asks for; None where the document has nothing (pages, files, wrong addresses)."""
    return next((each for pattern, each in _patterns() if each.method == method and pattern.fullmatch(path)), None)


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    """In what a value differs from a schema of the document."""
    validator = Draft202012Validator({**schema, "components": document()["components"]})
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in validator.iter_errors(value)]


def undocumented(method: str, path: str, *, status: int, media_type: str, body: bytes) -> Iterator[str]:
    """What of an answer the document does not have: its status, its media type, the code of its problem."""
    operation = operation_of(method, path)
    if operation is None:
        return
    response = operation.responses.get(str(status))
    if response is None:
        yield f"{operation.id} answered {status}"
    elif media_type and media_type not in response.get("content", {}):
        yield f"{operation.id} answered {status} with {media_type}"
    elif media_type == PROBLEM and (code := json.loads(body)["code"]) not in operation.codes(status):
        yield f"{operation.id} answered {status} with {code}"
