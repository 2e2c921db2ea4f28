"""Uploads: streamed, deduplicated, and nothing is left of a rejected one."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

from service.app import create_app
from service.settings import Settings
from tests import models
from tests.service.conftest import services_of, start, upload
from tests.signed_in import TestClient


def stored_files(client: TestClient) -> list[Path]:
    folder = services_of(client).settings.blobs_dir
    return [path for path in folder.rglob("*") if path.is_file()]


def post(client: TestClient, content: bytes, filename: str = "m.onnx") -> dict[str, object]:
    response = client.post(f"/api/v1/models?filename={filename}", content=content)
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem: dict[str, object] = response.json()
    assert problem["status"] == response.status_code
    assert problem["hint"]
    return problem


def test_an_upload_is_read_back_as_it_was(client: TestClient, model_file: Path) -> None:
    content = model_file.read_bytes()
    response = client.post("/api/v1/models?filename=dir/perceptron.onnx", content=content)
    assert response.status_code == 201
    model = response.json()
    assert model["id"] == hashlib.sha256(content).hexdigest()
    assert (model["name"], model["filename"], model["size_bytes"]) == ("perceptron", "perceptron.onnx", len(content))
    assert model["inputs"] == [{"name": "x", "dtype": "float32", "shape": [4, 32]}]
    assert response.headers["location"] == f"/api/v1/models/{model['id']}"
    got = client.get(f"/api/v1/models/{model['id']}/content")
    assert (got.content, got.headers["etag"]) == (content, f'"{model["id"]}"')
    assert client.get(f"/api/v1/models/{model['id'][:12]}").json() == client.get(f"/api/v1/models/{model['id']}").json()


def test_the_same_bytes_again_are_known(client: TestClient, model_file: Path) -> None:
    first = client.post("/api/v1/models?filename=a.onnx", content=model_file.read_bytes())
    again = client.post("/api/v1/models?filename=b.onnx", content=model_file.read_bytes())
    form = client.post("/api/v1/models", files={"file": ("c.onnx", model_file.read_bytes())})
    assert [r.status_code for r in (first, again, form)] == [201, 200, 200]
    assert first.json()["id"] == again.json()["id"] == form.json()["id"]
    assert len(stored_files(client)) == 1


def test_a_form_upload_has_its_files_name(client: TestClient, model_file: Path) -> None:
    model = client.post("/api/v1/models", files={"file": ("digits.onnx", model_file.read_bytes())}).json()
    assert model["filename"] == "digits.onnx"


def test_a_form_without_a_file_says_so(client: TestClient) -> None:
    response = client.post(
        "/api/v1/models", files={}, data={"a": "b"}, headers={"content-type": "multipart/form-data; boundary=x"}
    )
    assert response.json()["code"] == "invalid_form"


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"\x80\x03]q\x00.", b"\x08\x07", b"PK\x03\x04" + bytes(100), bytes(1000)]
)
def test_what_is_no_onnx_file_is_refused(client: TestClient, content: bytes) -> None:
    assert post(client, content)["code"] == "not_onnx"
    assert client.get("/api/v1/models").json()["items"] == []
    assert stored_files(client) == []


def test_every_truncation_is_refused(client: TestClient, model_file: Path) -> None:
    content = model_file.read_bytes()
    for size in range(1, len(content), max(1, len(content) // 40)):
        assert post(client, content[:size])["code"] == "not_onnx", size
    assert stored_files(client) == []


def test_external_data_is_refused(client: TestClient, tmp_path: Path) -> None:
    problem = post(client, models.write_external_data(tmp_path).read_bytes())
    assert (problem["status"], problem["code"]) == (422, "external_data")
    assert stored_files(client) == []


def test_external_data_inside_a_subgraph_is_found(client: TestClient, model_file: Path) -> None:
    model = onnx.load(model_file)
    hidden = onnx.helper.make_tensor("hidden", onnx.TensorProto.FLOAT, [1], [0.0])
    hidden.data_location = onnx.TensorProto.EXTERNAL
    inner = onnx.helper.make_graph([onnx.helper.make_node("Constant", [], ["c"], value=hidden)], "inner", [], [])
    outer = onnx.helper.make_graph([onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner)], "outer", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["x"], ["z"], then_branch=outer))
    problem = post(client, model.SerializeToString())
    assert problem["code"] == "external_data"
    assert problem["details"] == {"tensors": ["hidden"]}


def test_an_unknown_opset_is_refused(client: TestClient, tmp_path: Path) -> None:
    problem = post(client, models.write_unknown_opset(tmp_path).read_bytes())
    assert (problem["status"], problem["code"]) == (422, "unsupported_opset")


def test_the_newest_opset_of_onnx_is_taken(client: TestClient, model_file: Path) -> None:
    model = onnx.load(model_file)
    model.opset_import[0].version = onnx.defs.onnx_opset_version()
    assert client.post("/api/v1/models", content=model.SerializeToString()).status_code == 201


@pytest.mark.parametrize("form", [False, True])
def test_the_size_cap_holds(settings: Settings, model_file: Path, form: bool) -> None:
    capped = settings.model_copy(update={"max_upload_bytes": 1000})
    content = model_file.read_bytes()
    assert len(content) > 1000
    with TestClient(create_app(capped, engine=False)) as client:
        if form:
            response = client.post("/api/v1/models", files={"file": ("m.onnx", content)})
        else:
            response = client.post("/api/v1/models", content=content)
        assert (response.status_code, response.json()["code"]) == (413, "model_too_large")
        assert stored_files(client) == []


def test_a_stream_without_a_length_is_capped_too(settings: Settings) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 100 * 1024**2:
            sent += 65536
            yield bytes(65536)

    with TestClient(create_app(settings.model_copy(update={"max_upload_bytes": 200_000}), engine=False)) as client:
        response = client.post("/api/v1/models", content=endless())
        assert response.json()["code"] == "model_too_large"
        assert stored_files(client) == []


def test_a_model_is_deleted_with_its_blob_unless_jobs_use_it(client: TestClient, model_file: Path) -> None:
    job_id = start(client, model_file)
    model_id = upload(client, model_file)
    assert client.delete(f"/api/v1/models/{model_id}").json()["code"] == "model_in_use"
    assert client.delete(f"/api/v1/jobs/{job_id}").json()["code"] == "job_active"
    client.post(f"/api/v1/jobs/{job_id}/cancel")
    assert client.delete(f"/api/v1/jobs/{job_id}").status_code == 204
    assert client.delete(f"/api/v1/models/{model_id}").status_code == 204
    assert stored_files(client) == []
    assert client.get(f"/api/v1/models/{model_id}").json()["code"] == "model_not_found"


def test_samples_are_an_npz(client: TestClient, model_file: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=np.zeros((2, 4, 32), "float32"))
    samples = client.post("/api/v1/samples?filename=s.npz", content=buffer.getvalue())
    assert samples.status_code == 201
    assert start(client, model_file, samples=samples.json()["id"])
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("evil.pkl", b"")
    for content in (b"nope", archive.getvalue()):
        refused = client.post("/api/v1/samples", content=content)
        assert (refused.status_code, refused.json()["code"]) == (422, "samples_invalid")


def test_a_name_cannot_escape(client: TestClient, model_file: Path) -> None:
    response = client.post(
        "/api/v1/models", params={"filename": '../../etc/"x\r\n.onnx'}, content=model_file.read_bytes()
    )
    assert response.json()["filename"] == "x.onnx"
