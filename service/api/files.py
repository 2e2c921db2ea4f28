"""Files as answers: whole, in parts, or a problem where a part is asked for that they do not have."""

from __future__ import annotations

from typing import Any

from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException
from starlette.responses import MalformedRangeHeader, RangeNotSatisfiable

from service.api.codes import problem_responses


class StoredFile(FileResponse):
    """Starlette's answers to a bad ``Range`` are plain text: ours is a problem, and what is no range of bytes is
    ignored (RFC 9110, section 14.2)."""

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []
        except RangeNotSatisfiable:
            headers = {"Content-Range": f"bytes */{file_size}"}
            raise HTTPException(416, detail=f"The file has {file_size} bytes.", headers=headers) from None


def file_responses(*media_types: str, description: str) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's entries for a `StoredFile`: the whole, a part of it, and a part that is not there."""
    schema: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    return {
        200: {"description": description, "content": dict.fromkeys(media_types, schema)},
        206: {
            "description": "The part that `Range` asked for; of several parts, `multipart/byteranges`",
            "content": dict.fromkeys((*media_types, "multipart/byteranges"), schema),
        },
        **problem_responses("range_not_satisfiable"),
    }
