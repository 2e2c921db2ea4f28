"""Reading model files: each thing that can be wrong has its own code, and good files load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests import models
from tuner.errors import ModelError
from tuner.frontend.load import NEWEST_OPSET, load_model


def code_of(path: Path) -> str:
    with pytest.raises(ModelError) as raised:
        load_model(path)
    assert raised.value.hint
    return raised.value.code


def test_a_good_model_loads(convolutional_model: Path) -> None:
    assert [node.op_type for node in load_model(convolutional_model).graph.node][:2] == ["Conv", "Relu"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, I am text\n" * 50,
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        bytes(range(256)) * 4,
        b"PK\x03\x04" + b"\x07" * 99,
    ],
    ids=["empty", "text", "png", "bytes", "zip"],
)
def test_other_files_are_not_onnx(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    assert code_of(path) == "not_onnx"


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model_is_told_from_a_foreign_file(tmp_path: Path, kept: float) -> None:
    whole = models.convolutional().SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(whole[: int(len(whole) * kept)])
    assert code_of(path) == "truncated_model"


def test_external_data_is_refused(tmp_path: Path) -> None:
    assert code_of(models.write_external_data(tmp_path)) == "external_data"


def test_external_data_is_refused_inside_a_branch_without_opening_it(tmp_path: Path) -> None:
    outside = numpy_helper.from_array(np.ones(2, np.float32), "w")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="../../etc/hostname")
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    branch = helper.make_graph([helper.make_node("Constant", [], ["y"], value=outside)], "branch", [], [y])
    choice = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    graph = helper.make_graph(
        [choice],
        "g",
        [helper.make_tensor_value_info("c", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])],
    )
    path = tmp_path / "model.onnx"
    path.write_bytes(helper.make_model(graph, ir_version=10).SerializeToString())
    assert code_of(path) == "external_data"


def test_an_unknown_opset_is_refused(tmp_path: Path) -> None:
    assert code_of(models.write_unknown_opset(tmp_path)) == "unsupported_opset"


def test_a_missing_opset_is_refused(tmp_path: Path) -> None:
    model = models.convolutional()
    del model.opset_import[:]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert code_of(path) == "unsupported_opset"


def test_the_newest_opset_is_the_one_that_onnx_knows() -> None:
    assert onnx.defs.onnx_opset_version() == NEWEST_OPSET


def test_a_graph_that_reads_an_undefined_value_is_invalid(tmp_path: Path) -> None:
    model = models.convolutional()
    model.graph.node[1].input[0] = "nowhere"
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert code_of(path) == "model_invalid"


def test_an_empty_graph_is_invalid(tmp_path: Path) -> None:
    model = models.convolutional()
    del model.graph.node[:]
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert code_of(path) == "model_invalid"


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    twice = helper.make_function(
        "local", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    graph = helper.make_graph([helper.make_node("Twice", ["x"], ["y"], domain="local")], "g", [value], [result])
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    model = helper.make_model(graph, functions=[twice], opset_imports=opsets, ir_version=10)
    loaded = load_model(models.write(model, tmp_path / "model.onnx"))
    assert [node.op_type for node in loaded.graph.node] == ["Add"]
