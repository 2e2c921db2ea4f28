"""Uploads over real sockets: slow, cut, of wrong length, and gigabytes of nothing. The server goes on answering."""

from __future__ import annotations

import contextlib
import http.client
import json
import logging
import os
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from service.services import ProjectServices
from service.uploads import delete_model
from tests import models
from tests.acceptance.conftest import serve
from tests.service.conftest import until
from tests.signed_in import token_of

pytestmark = pytest.mark.fuzz

# 2 GiB, the default limit of uploads, where TESSERA_TEST_FUZZ_ZEROS_BYTES says so.
ZEROS_BYTES = int(os.environ.get("TESSERA_TEST_FUZZ_ZEROS_BYTES", str(64 * 1024**2)))
MODEL = models.perceptron().SerializeToString()
_WITHIN_S = 20.0
_PIECE = bytes(2**20)
_TOKEN = "Authorization: -"


class Server:
    """A server under attack: where it is, and what it has."""

    def __init__(self, url: str, services: ProjectServices) -> None:
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)
        self.services = services
        self.token = token_of(url)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=_WITHIN_S)

    def signed(self, request: bytes) -> bytes:
        return request.replace(_TOKEN.encode(), f"Authorization: Bearer {self.token}".encode())

    def get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self.address, timeout=_WITHIN_S)
        connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer

    def is_well(self) -> bool:
        """It answers, and no half of an upload is left."""
        unfinished = list((self.services.settings.blobs_dir / "tmp").iterdir())
        return not unfinished and self.get("/healthz")[0] == 200

    def models(self) -> list[dict[str, object]]:
        items: list[dict[str, object]] = json.loads(self.get("/api/v1/models")[1])["items"]
        return items


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("data")) as (url, services):
        yield Server(url, services)


@pytest.fixture
def server(running: Server) -> Iterator[Server]:
    """Without a model. Nothing that it logs may be an error: of what a client does, none is the server's."""
    told: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("tessera", "uvicorn.error")]
    for logger in loggers:
        logger.addHandler(handler)
    yield running
    for logger in loggers:
        logger.removeHandler(handler)
    for model in running.models():
        delete_model(running.services, str(model["id"]))
    assert told == []


def head(length: int | str | None, *more: str) -> bytes:
    """Of an upload: its header, with that length; who sends it is put in by `Server.signed`."""
    lines = ["POST /api/v1/models?filename=m.onnx HTTP/1.1", "Host: 127.0.0.1", _TOKEN, *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def answer(connection: socket.socket) -> tuple[int, str, bytes]:
    """Status, media type and body; status 0 when the server only closes."""
    response = http.client.HTTPResponse(connection)
    try:
        response.begin()
        return response.status, response.headers.get_content_type(), response.read()
    except (http.client.BadStatusLine, ConnectionResetError):
        return 0, "", b""


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("sent", [0, 1, len(MODEL) // 2, len(MODEL) - 1])
def test_of_a_cut_upload_nothing_is_left(server: Server, sent: int, reset: bool) -> None:
    connection = server.connect()
    connection.sendall(server.signed(head(len(MODEL))) + MODEL[:sent])
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    until(lambda: server.is_well(), within_s=_WITHIN_S)
    assert server.models() == []


def test_many_slow_uploads_hold_nobody_up(server: Server) -> None:
    connections = [server.connect() for _ in range(40)]
    step = len(MODEL) // 4
    for begin in range(0, len(MODEL), step):
        for connection in connections:
            connection.sendall((server.signed(head(len(MODEL))) if begin == 0 else b"") + MODEL[begin : begin + step])
        assert server.get("/healthz")[0] == 200
    statuses = sorted(answer(connection)[0] for connection in connections)
    assert set(statuses) <= {200, 201}
    assert 201 in statuses
    assert len(server.models()) == 1
    for connection in connections:
        connection.close()
    assert server.is_well()


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (head(0), b""),
        (head(0), MODEL),
        (head(len(MODEL) - 5), MODEL),
        (head(len(MODEL) + 5), MODEL),
        (head(-1), MODEL),
        (head("many"), MODEL),
        (head(2**63), MODEL),
        (head("9" * 400), MODEL),
        (head(None), MODEL),
        (head(None, "Transfer-Encoding: chunked"), b"ffffffffffffffff\r\n" + MODEL),
        (head(None, "Transfer-Encoding: chunked"), b"-5\r\nhello\r\n0\r\n\r\n"),
        (head(None, "Transfer-Encoding: chunked"), b"zz\r\n"),
        (head(None, "Transfer-Encoding: chunked"), b"5\r\nhello\r\n0\r\n\r\n"),
        (head(7, "Transfer-Encoding: chunked"), b"5\r\nhello\r\n0\r\n\r\n"),
        (head(5, "Content-Length: 9"), b"hello"),
        (head(5, "Content-Type: multipart/form-data"), b"hello"),
        (head(5, "Content-Type: multipart/form-data; boundary="), b"hello"),
        (head(5, "Content-Type: multipart/form-data; boundary=" + "b" * 5000), b"hello"),
        (head(300, "Content-Type: multipart/form-data; boundary=b"), b"--b\r\n" + b"X-A: b\r\n" * 36),
        (head(5, "Expect: 100-continue"), b"hello"),
        (b"POST /api/v1/models HTTP/9.9\r\n\r\n", b""),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"\x01" * 200),
        (b"GET " + b"/" * 70_000, b""),
    ],
    ids=range(23),
)
def test_a_wrong_length_is_the_clients_fault(server: Server, header: bytes, body: bytes) -> None:
    with server.connect() as connection, contextlib.suppress(ConnectionError):
        connection.sendall(server.signed(header) + body)
        connection.shutdown(socket.SHUT_WR)
        status, media_type, told = answer(connection)
        assert status < 500
        if status >= 400 and media_type != "text/plain":  # plain: what is no HTTP never reaches the application
            problem = json.loads(told)
            assert problem["code"]
            assert problem["hint"]
    until(lambda: server.is_well(), within_s=_WITHIN_S)
    assert server.models() == []


@pytest.mark.parametrize("chunked", [False, True])
def test_zeros_are_received_and_refused(server: Server, chunked: bool) -> None:
    """As many as an upload may have, never held in memory; what is said to be longer is not received at all."""

    def zeros() -> Iterator[bytes]:
        for _ in range(ZEROS_BYTES // len(_PIECE)):
            yield _PIECE

    connection = http.client.HTTPConnection(*server.address, timeout=600.0)
    headers = {"Authorization": f"Bearer {server.token}"}
    if not chunked:
        headers["Content-Length"] = str(ZEROS_BYTES)
    connection.request("POST", "/api/v1/models", body=zeros(), headers=headers, encode_chunked=chunked)
    response = connection.getresponse()
    assert (response.status, json.loads(response.read())["code"]) == (400, "not_onnx")
    connection.close()
    with server.connect() as other:
        other.sendall(server.signed(head(server.services.settings.max_upload_bytes + 2**30)))
        status, _, told = answer(other)
        assert (status, json.loads(told)["code"]) == (413, "model_too_large")
    assert server.is_well()
