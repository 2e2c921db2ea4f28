"""/docs: the reference of the REST interface, made from the OpenAPI document."""

from __future__ import annotations

import json
from dataclasses import dataclass
from shlex import quote
from typing import Any
from urllib.parse import quote as quote_url

from fastapi import APIRouter, Request, Response
from markupsafe import Markup, escape

from service.api import codes, openapi
from service.dashboard.pages import PageRoute, render

router = APIRouter(route_class=PageRoute, include_in_schema=False)
# How curl sends what is no JSON, and what such a body is called where it lies.
_FILES = {"upload_model": "model.onnx", "upload_samples": "inputs.npz", "import_records": "records.ndjson"}


@dataclass(frozen=True)
class Field:
    """A parameter, or a field of a body."""

    name: str
    where: str
    kind: str
    about: str


@dataclass(frozen=True)
class Body:
    """``example`` is text as it goes over the wire, JSON indented; None where there is no body."""

    title: str
    media_type: str
    example: str | None


@dataclass(frozen=True)
class Refusal:
    status: int
    code: str
    hint: str


@dataclass(frozen=True)
class Operation:
    id: str
    method: str
    path: str
    summary: str
    description: str
    curl: str
    fields: list[Field]
    bodies: list[Body]
    refusals: list[Refusal]


@dataclass(frozen=True)
class Group:
    name: str
    about: str
    operations: list[Operation]


@router.get("/docs")
def show_reference(request: Request) -> Response:
    document = request.app.openapi()
    context = {
        "about": [inline(part) for part in document["info"]["description"].split("\n\n")],
        "groups": read_groups(document, base_url=str(request.base_url).rstrip("/")),
        "address": openapi.ADDRESS,
        "inline": inline,
    }
    return render("reference.html", context, here="/docs")


def read_groups(document: dict[str, Any], *, base_url: str) -> list[Group]:
    """The document's operations by their tags; curl lines ask ``base_url``."""
    of_tag: dict[str, list[Operation]] = {tag["name"]: [] for tag in document["tags"]}
    for method, path, operation in openapi.operations(document):
        of_tag[operation["tags"][0]].append(_operation(document, method, path, operation, base_url))
    return [Group(tag["name"], tag["description"], of_tag[tag["name"]]) for tag in document["tags"]]


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any], base_url: str) -> Operation:
    sent = operation.get("requestBody", {}).get("content", {})
    bodies = [Body("Request", media_type, _text(content)) for media_type, content in sent.items()]
    refusals = []
    for status, response in operation["responses"].items():
        content = dict(response.get("content", {}))
        problems = content.pop(codes.MEDIA_TYPE, {"examples": {}})["examples"]
        refusals += [Refusal(int(status), code, each["value"]["hint"]) for code, each in problems.items()]
        if not problems:
            title = f"{status} {response['description']}"
            shown = {} if status == "206" else content  # parts look like the whole
            bodies += [Body(title, media_type, _text(each)) for media_type, each in shown.items()]
            bodies += [] if shown else [Body(title, "", None)]
    return Operation(
        id=operation["operationId"],
        method=method.upper(),
        path=path,
        summary=operation["summary"],
        description=operation["description"],
        curl=_curl(method, path, operation, base_url),
        fields=[*_parameters(document, operation), *_body_fields(document, sent)],
        bodies=bodies,
        refusals=refusals,
    )


def _text(content: dict[str, Any]) -> str:
    example = content["example"]
    return example.rstrip() if isinstance(example, str) else json.dumps(example, indent=2, ensure_ascii=False)


def _curl(method: str, path: str, operation: dict[str, Any], base_url: str) -> str:
    """A line that does it, with the values of the examples."""
    for each in operation.get("parameters", []):
        if each["in"] == "path":
            path = path.replace(f"{{{each['name']}}}", quote_url(str(each["example"]), safe=""))
    options: list[str] = []
    sent = operation.get("requestBody", {}).get("content", {})
    answered = {kind for response in operation["responses"].values() for kind in response.get("content", {})}
    if "application/json" in sent:
        body = json.dumps(sent["application/json"]["example"])
        options = [] if method == "post" else ["-X", method.upper()]
        options += ["-H", quote("content-type: application/json"), "-d", quote(body)]
    elif sent:
        file = _FILES[operation["operationId"]]
        options = ["--data-binary", f"@{file}"]
        if any(each["name"] == "filename" for each in operation["parameters"]):
            path += f"?filename={file}"
    elif method != "get":
        options = ["-X", method.upper()]
    elif "text/event-stream" in answered:
        options = ["-N"]
    elif "application/octet-stream" in answered:
        options = ["-O", "-J"]
    if operation["security"]:
        options += ["-H", '"Authorization: Bearer $TESSERA_TOKEN"']
    return " ".join(["curl", *options, quote(base_url + path)])


def _parameters(document: dict[str, Any], operation: dict[str, Any]) -> list[Field]:
    return [
        Field(
            name=each["name"],
            where=each["in"],
            kind=_kind(document, each["schema"], required=each.get("required", False)),
            about=each["description"],
        )
        for each in operation.get("parameters", [])
    ]


def _body_fields(document: dict[str, Any], sent: dict[str, Any]) -> list[Field]:
    schema = _resolve(document, sent.get("application/json", {}).get("schema", {}))
    required = schema.get("required", [])
    return [
        Field(
            name=name,
            where="body",
            kind=_kind(document, each, required=name in required),
            about=each.get("description", ""),
        )
        for name, each in schema.get("properties", {}).items()
    ]


def _kind(document: dict[str, Any], schema: dict[str, Any], *, required: bool) -> str:
    """Its type in words, then whether it has to be there, or what it is if left out."""
    kind = _type(document, schema)
    if required:
        return f"{kind}, required"
    default = schema.get("default")
    return kind if default in (None, "", [], {}) else f"{kind}; {json.dumps(default)} if left out"


def _type(document: dict[str, Any], schema: dict[str, Any]) -> str:
    schema = _resolve(document, schema)
    if "enum" in schema:
        return " or ".join(str(value) for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(_type(document, option) for option in schema["anyOf"] if option.get("type") != "null")
    if schema.get("type") == "array":
        return f"list of {_type(document, schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _resolve(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = document["components"]["schemas"][name] if name else schema
    return found


def inline(text: str) -> Markup:
    """Escaped text; what stands between backticks is code."""
    code = Markup("<code>{}</code>")
    pieces = enumerate(text.split("`"))
    return Markup("").join(code.format(each) if index % 2 else escape(each) for index, each in pieces)
