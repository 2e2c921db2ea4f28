"""Hostile models that an upload takes, checked as the service does it, in a process of its own: each has its code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from service.app import create_app
from service.settings import Settings
from tests.fuzz import wire
from tests.fuzz.conftest import UNLIMITED
from tests.fuzz.seeds import integers, network
from tests.signed_in import TestClient

pytestmark = [pytest.mark.fuzz, pytest.mark.slow]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    data_dir: Path = tmp_path_factory.mktemp("data")
    with TestClient(create_app(Settings(data_dir=data_dir, **UNLIMITED), engine=False)) as client:
        yield client


def bomb_in_a_branch() -> bytes:
    """4 GiB of zeros that only a branch would make."""
    body = helper.make_graph(
        [
            helper.make_node("ConstantOfShape", ["size"], ["huge"]),
            helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        ],
        "b",
        [],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])],
        [integers("size", 2**15, 2**15)],
    )
    condition = numpy_helper.from_array(np.asarray(True), "c")
    nodes = [
        helper.make_node("If", ["c"], ["s"], then_branch=body, else_branch=body),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    return network(nodes, initializers=[condition]).SerializeToString()


def ring() -> bytes:
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return network([*nodes, helper.make_node("Relu", ["b"], ["y"])]).SerializeToString()


def no_type() -> bytes:
    weight = TensorProto(name="w", data_type=77, dims=[3], raw_data=bytes(12))
    return network([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight]).SerializeToString()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (bomb_in_a_branch(), "model_too_large"),
        (ring(), "cyclic_graph"),
        (no_type(), "model_invalid"),
        (wire.nested_branches(20), "model_too_complex"),
        (wire.nested_branches(60), "not_onnx"),
    ],
    ids=["bomb", "ring", "type", "nested", "nested beyond the parser"],
)
def test_a_check_says_why(client: TestClient, content: bytes, code: str) -> None:
    uploaded = client.post("/api/v1/models", content=content)
    assert uploaded.status_code == 201, uploaded.text
    refused = client.post(f"/api/v1/models/{uploaded.json()['id']}/check", json={"target": "host"})
    assert (refused.status_code, refused.json()["code"]) == (422, code), refused.text
    assert "Traceback" not in refused.text
