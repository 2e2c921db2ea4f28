"""What preflight says of a model: its cost, its operators, and everything that it cannot import, at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from tests import models
from tuner.errors import ModelError, UnsupportedOperators
from tuner.frontend.operators import count_operators, oldest_converter_version
from tuner.frontend.preflight import check_model, prepare_model
from tuner.targets import host_target


def test_the_report_of_a_small_network_counts_by_hand(convolutional_model: Path) -> None:
    report = check_model(convolutional_model, {}, host_target())
    conv = 2 * 16 * 16 * 16 * 3 * 9
    relu, pool, average, gemm = 16 * 256, 16 * 64 * 4, 16 * 64, 2 * 10 * 16
    assert report.flops == conv + relu + pool + average + gemm
    assert report.weights_bytes == 4 * (16 * 27 + 16 + 160 + 10)
    # The convolution's output, over which the Relu works in place, and the pooled one; the input is dead by then.
    assert report.peak_activation_bytes == 4 * (16 * 256 + 16 * 64)
    # By windows the convolution's output is never there as a whole.
    assert report.least_memory_bytes is not None
    assert report.usual_memory_bytes is not None
    assert report.safe_memory_limit_bytes is not None
    assert report.least_memory_bytes < report.peak_activation_bytes <= report.usual_memory_bytes
    # That the picture is padded counts, and what schedules may add.
    padded_bytes = 4 * 3 * 18 * 18
    assert report.safe_memory_limit_bytes > report.least_memory_bytes + padded_bytes
    assert report.operators == {
        "Conv": 1,
        "Flatten": 1,
        "Gemm": 1,
        "GlobalAveragePool": 1,
        "MaxPool": 1,
        "Relu": 1,
    }
    assert [(spec.name, spec.shape, spec.dtype) for spec in report.inputs] == [("image", (1, 3, 16, 16), "float32")]
    assert [(spec.name, spec.shape, spec.dtype) for spec in report.outputs] == [("logits", (1, 10), "float32")]
    assert 10 < report.seconds_per_100_trials < 60
    assert json.loads(json.dumps(report.as_dict()))["inputs"][0]["shape"] == [1, 3, 16, 16]


def test_all_unsupported_operators_are_named_at_once(unsupported_model: Path) -> None:
    with pytest.raises(UnsupportedOperators) as raised:
        check_model(unsupported_model, {}, host_target())
    assert raised.value.details["operators"] == {"Celu": 2, "LSTM": 1}
    assert "Celu (×2)" in raised.value.message


def test_operators_of_other_domains_are_told_apart(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], domain="ai.custom"),
        helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft"),
        helper.make_node("BiasGelu", ["b", "b"], ["c"]),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    model = helper.make_model(helper.make_graph(nodes, "g", [value], []), ir_version=10)
    assert count_operators(model) == {"BiasGelu": 1, "ai.custom::Relu": 1, "com.microsoft::Gelu": 1}
    from tuner.frontend.operators import refuse_unsupported

    with pytest.raises(UnsupportedOperators) as raised:
        refuse_unsupported(count_operators(model))
    assert raised.value.details["operators"] == {"BiasGelu": 1, "ai.custom::Relu": 1}


def test_unsupported_operators_inside_branches_are_found(tmp_path: Path) -> None:
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    branch = helper.make_graph([helper.make_node("Celu", ["x"], ["y"])], "branch", [], [y])
    choice = helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    inputs = [
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
    ]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [2])]
    model = helper.make_model(helper.make_graph([choice], "g", inputs, outputs), ir_version=10)
    path = models.write(model, tmp_path / "branch.onnx")
    with pytest.raises(UnsupportedOperators) as raised:
        prepare_model(path, {})
    assert raised.value.details["operators"] == {"Celu": 2}


def test_the_frontend_still_tells_what_it_can_import() -> None:
    assert oldest_converter_version("Conv") is not None
    assert oldest_converter_version("Slice") == 13
    assert oldest_converter_version("LSTM") is None


def test_a_bomb_of_a_few_bytes_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [2**40])
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph(nodes, "g", [value], [result], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=10)
    path = models.write(model, tmp_path / "bomb.onnx")
    with pytest.raises(ModelError) as raised:
        prepare_model(path, {})
    assert raised.value.code == "model_too_large"
