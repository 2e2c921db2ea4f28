"""/docs: the interface's reference as one page made from the OpenAPI document, without scripts or other servers."""

from __future__ import annotations

import json
from html import escape
from typing import Any

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 64rem; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 32px; }
details { border-top: 1px solid color-mix(in srgb, currentColor 20%, transparent); padding: 8px 0; }
summary { cursor: pointer; } summary code { font-weight: 600; } summary span { opacity: .75; margin-left: 8px; }
table { border-collapse: collapse; } td, th { text-align: left; padding: 2px 16px 2px 0; vertical-align: top; }
pre { overflow-x: auto; padding: 8px; background: color-mix(in srgb, currentColor 7%, transparent); }
"""


def render(openapi: dict[str, Any]) -> str:
    """The page. Every route is a section that opens; schemas show their example, or their fields."""
    groups: dict[str, list[str]] = {}
    for path, methods in openapi["paths"].items():
        for method, operation in methods.items():
            tag = (operation.get("tags") or ["other"])[0]
            groups.setdefault(tag, []).append(_operation(openapi, method, path, operation))
    sections = "".join(
        f"<h2>{escape(tag.capitalize())}</h2>{''.join(operations)}" for tag, operations in groups.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Tessera: REST reference</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f"<h1>Tessera {escape(openapi['info']['version'])}: REST reference</h1>"
        f"{''.join(f'<p>{_inline(part)}</p>' for part in openapi['info']['description'].split(chr(10) * 2))}"
        f'<p>As <a href="/api/v1/openapi.json">OpenAPI</a> for generators. <a href="/">Dashboard</a>.</p>'
        f"{sections}</body></html>"
    )


def _operation(openapi: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    parts = [f"<p>{_inline(operation['description'])}</p>"] if operation.get("description") else []
    if parameters := operation.get("parameters"):
        rows = "".join(
            f"<tr><td><code>{escape(p['name'])}</code><td>{escape(p['in'])}<td>{_kind(p.get('schema', {}))}"
            f"<td>{_inline(p.get('description', ''))}</tr>"
            for p in parameters
        )
        parts.append(f"<table><tr><th>Parameter<th>In<th>Type<th></tr>{rows}</table>")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        parts.append(f"<h4>Body: <code>{escape(kind)}</code></h4>{_schema(openapi, content.get('schema', {}))}")
    for status, response in operation.get("responses", {}).items():
        kinds = ", ".join(response.get("content", {}))
        parts.append(
            f"<h4>{escape(status)} {escape(response.get('description', ''))} <code>{escape(kinds)}</code></h4>"
        )
        if status.startswith("2"):
            parts += [_schema(openapi, content.get("schema", {})) for content in response.get("content", {}).values()]
    return (
        f"<details><summary><code>{method.upper()} {escape(path)}</code>"
        f"<span>{escape(operation.get('summary', ''))}</span></summary>{''.join(parts)}</details>"
    )


def _schema(openapi: dict[str, Any], schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    resolved = openapi["components"]["schemas"].get(name, schema) if name else schema
    if "example" in resolved:
        return f"<pre>{escape(json.dumps(resolved['example'], indent=2))}</pre>"
    properties = resolved.get("properties", {})
    if not properties:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code><td>{_kind(inner)}<td>{_inline(inner.get('description', ''))}</tr>"
        for field, inner in properties.items()
    )
    about = f"<p>{_inline(resolved['description'])}</p>" if resolved.get("description") else ""
    return f"{about}<table>{rows}</table>"


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return escape(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return escape(str(schema.get("format") or schema.get("type") or "any"))


def _inline(text: str) -> str:
    """Escaped text; `code` between backticks."""
    pieces = text.split("`")
    return "".join(
        f"<code>{escape(piece)}</code>" if index % 2 else escape(piece) for index, piece in enumerate(pieces)
    ).replace("``", "")
