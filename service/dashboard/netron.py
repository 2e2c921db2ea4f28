"""Netron, which draws the graphs of models: its modules out of the installed package, for the page of ours that they
draw on.

Netron's own page is not served: its host asks where the reader is, reports what is opened, and looks for updates. The
page here has a host of its own (``static/graph.js``), which calls this server and nothing else.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib.metadata import Distribution, distribution
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from service.dashboard.pages import CONTENT_POLICY, PageNotFound, PageRoute

router = APIRouter(route_class=PageRoute, include_in_schema=False)

# Netron writes a few style attributes into what it shows, and makes a PNG from a data: address.
POLICY = f"{CONTENT_POLICY}; style-src-attr 'unsafe-inline'; img-src 'self' data:"
_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".json": "application/json"}
# What drawing an ONNX file can ask for, which includes readers of what it might be instead. The package has two hundred
# more files, for other formats.
FILES = frozenset(
    {
        "base.js",
        "dagre.js",
        "flatbuffers.js",
        "grapher.css",
        "grapher.js",
        "hdf5.js",
        "json.js",
        "onnx-metadata.json",
        "onnx-proto.js",
        "onnx-schema.js",
        "onnx.js",
        "protobuf.js",
        "python.js",  # writes tensors as .npy
        "tar.js",
        "text.js",
        "view.js",
        "worker.js",
        "xml.js",
        "zip.js",
    }
)


def version() -> str:
    """The installed Netron's; it is part of every address, so that browsers may keep the files."""
    return _package().version


@router.get("/netron/{wanted}/{name}")
def show_file(request: Request, wanted: str, name: str) -> Response:
    if name not in FILES or wanted != version():
        raise PageNotFound(f"There is nothing at {request.url.path}.")
    media_type = _MEDIA_TYPES[Path(name).suffix]
    # A worker is bound by the policy of its own file, not by that of the page which starts it.
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "Content-Security-Policy": CONTENT_POLICY,
        "Vary": "Accept-Encoding",
    }
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(_compressed(name), media_type=media_type, headers=headers)
    return FileResponse(_path(name), media_type=media_type, headers=headers)


@cache
def _compressed(name: str) -> bytes:
    """Under a megabyte for all files together, of eight."""
    return gzip.compress(_path(name).read_bytes(), mtime=0)


def _path(name: str) -> Path:
    return Path(str(_package().locate_file(f"netron/{name}")))


@cache
def _package() -> Distribution:
    return distribution("netron")
