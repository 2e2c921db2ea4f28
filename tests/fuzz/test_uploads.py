"""The same corpus through the interface: no answer is the server's fault, no file is outside of the data directory."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import numpy as np
import pytest

from service.app import create_app
from service.settings import Settings
from tests import models
from tests.fuzz import hostile
from tests.fuzz.byte_mutations import mutate_bytes
from tests.fuzz.cases import make_case
from tests.fuzz.conftest import CASES, UNLIMITED
from tests.service.contract import undocumented
from tests.signed_in import TestClient

pytestmark = pytest.mark.fuzz

_BLOCK = 200
NAMES = (
    "../../../../tmp/evil.onnx",
    "/etc/cron.d/evil",
    "..\\..\\evil.onnx",
    "..",
    ".",
    "",
    "a/../../b.onnx",
    "nul\0.onnx",
    "line\r\nSet-Cookie: a=b",
    "%2e%2e%2fevil.onnx",
    "C:\\evil.onnx",
    "\u202egnp.onnx",
    "~root/.ssh/authorized_keys",
    "$(touch evil)`touch evil`;touch evil",
    'quote".onnx',
    "n" * 255,
    "🙂" * 60,
    "\udc80.onnx",
)


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where files may be. The working directory, the home and the place for temporary files lie beside it."""
    for name in ("cwd", "home", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return tmp_path / "deep" / "data"


@pytest.fixture
def client(data_dir: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Settings(data_dir=data_dir, **UNLIMITED), engine=False)) as client:
        yield client


def answer(response: httpx2.Response) -> dict[str, Any]:
    """A documented answer that is not the server's fault; a refusal has a code and a hint."""
    media_type = response.headers["content-type"].partition(";")[0]
    assert response.status_code < 500, response.text
    documented = undocumented(
        "POST", response.request.url.path, status=response.status_code, media_type=media_type, body=response.content
    )
    assert list(documented) == []
    body: dict[str, Any] = response.json()
    if response.status_code >= 400:
        assert media_type == "application/problem+json"
        assert body["code"]
        assert body["hint"]
    return body


def outside(tmp_path: Path, data_dir: Path) -> list[Path]:
    return [path for path in tmp_path.rglob("*") if path.is_file() and data_dir not in path.parents]


def blobs(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "blobs").rglob("*") if path.is_file()]


@pytest.mark.parametrize("first", range(0, CASES, _BLOCK))
def test_every_case_is_taken_or_refused(client: TestClient, tmp_path: Path, data_dir: Path, first: int) -> None:
    taken: dict[str, bytes] = {}
    for number in range(first, min(first + _BLOCK, CASES)):
        content = make_case(number).content
        if number % 2:
            response = client.post("/api/v1/models", content=content, params={"filename": f"{number}.onnx"})
        else:
            response = client.post("/api/v1/models", files={"file": (f"{number}.onnx", content)})
        body = answer(response)
        if response.status_code < 400:
            taken[body["id"]] = content
    assert taken
    assert len(blobs(data_dir)) == len(taken)
    assert outside(tmp_path, data_dir) == []
    for model_id, content in taken.items():
        assert client.get(f"/api/v1/models/{model_id}/content").content == content
        assert client.get(f"/api/v1/models/{model_id}").json()["id"] == model_id
        assert client.delete(f"/api/v1/models/{model_id}").status_code == 204
    assert blobs(data_dir) == []


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("form", [False, True])
def test_a_name_is_only_a_name(client: TestClient, tmp_path: Path, data_dir: Path, name: str, form: bool) -> None:
    content = models.perceptron().SerializeToString()
    if form:
        quoted = name.encode(errors="surrogatepass").replace(b'"', b"%22").replace(b"\r\n", b"%0D%0A")
        body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + quoted + b'"\r\n\r\n' + content
        response = client.post(
            "/api/v1/models",
            content=body + b"\r\n--b--\r\n",
            headers={"content-type": "multipart/form-data; boundary=b"},
        )
    else:
        response = client.post(f"/api/v1/models?filename={quote(name.encode(errors='surrogatepass'))}", content=content)
    found = answer(response)
    if response.status_code < 400:
        assert not {"/", "\\", "\0", "\r", "\n", '"'} & set(found["filename"])
        assert found["filename"] not in ("", ".", "..")
        got = client.get(f"/api/v1/models/{found['id']}/content")
        assert got.content == content
        assert "set-cookie" not in got.headers
    assert outside(tmp_path, data_dir) == []


@pytest.mark.parametrize("first", range(0, CASES, _BLOCK))
def test_damaged_samples_and_forms_are_taken_or_refused(client: TestClient, first: int) -> None:
    packed = io.BytesIO()
    np.savez(packed, x=np.zeros((2, 4, 32), np.float32), y=np.arange(3))
    samples, model = packed.getvalue(), models.perceptron().SerializeToString()
    form = b'--b\r\nContent-Disposition: form-data; name="file"; filename="m.onnx"\r\n\r\n' + model + b"\r\n--b--\r\n"
    for number in range(first, min(first + _BLOCK, CASES)):
        rng = random.Random(number)
        answer(client.post("/api/v1/samples", content=mutate_bytes(samples, model, rng)))
        damaged = bytearray(form)
        # The head is small beside the model: most of the damage is to be there.
        damaged[:120] = mutate_bytes(form[:120], samples, rng)
        kind = "multipart/form-data; boundary=b" if number % 5 else f"multipart/form-data; {rng.randbytes(9).hex()}"
        answer(client.post("/api/v1/models", content=bytes(damaged), headers={"content-type": kind}))


@pytest.mark.parametrize(
    "charset", ["undefined", "idna", "punycode", "unicode_escape", "utf-7", "hex", "utf-16", "\xff"]
)
@pytest.mark.parametrize("name", [b"+2AA-.onnx", b"\\ud800.onnx", b"\\u202egnp.onnx", b"\xff\xfe\x00"])
def test_a_form_of_any_charset_is_taken_or_refused(client: TestClient, charset: str, name: bytes) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\n'
    response = client.post(
        "/api/v1/models",
        content=head + models.perceptron().SerializeToString() + b"\r\n--b--\r\n",
        headers={"content-type": f"multipart/form-data; boundary=b; charset={charset}".encode("latin-1")},
    )
    found = answer(response)
    if response.status_code < 400:
        assert found["filename"].encode()
        assert "\u202e" not in found["filename"]


def test_a_zip_whose_directory_is_as_large_as_an_upload_is_not_read(client: TestClient) -> None:
    size = 64 * 1024**2
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, size, 0, 0)
    response = client.post("/api/v1/samples", content=bytes(size) + end)
    assert answer(response)["code"] == "samples_invalid"


def test_external_data_is_refused_wherever_it_is(client: TestClient, data_dir: Path) -> None:
    """Also where the path is a link beside the blobs, or in the working directory."""
    for folder in (Path.cwd(), data_dir, data_dir / "blobs" / "tmp"):
        (folder / "weights.bin").write_bytes(bytes(24))
        (folder / "link.bin").symlink_to("/etc/passwd")
    refused = 0
    for number in range(200):
        content = hostile.external_data(random.Random(number))
        response = client.post("/api/v1/models", content=content)
        assert answer(response)["code"] == "external_data", number
        refused += 1
    assert refused == 200
