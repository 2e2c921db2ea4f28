"""Binding dimensions: what is guessed, what is asked for, and what is refused."""

from __future__ import annotations

import pytest
from onnx import ModelProto, TensorProto, helper

from tests import models
from tuner.errors import MissingDimensions, ModelError
from tuner.frontend.shapes import bind_input_shapes, infer_shapes, real_inputs


def identity(*shapes: list[int | str | None] | None) -> ModelProto:
    inputs = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    nodes = [helper.make_node("Relu", [f"x{i}"], [f"y{i}"]) for i in range(len(shapes))]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, shape) for i, shape in enumerate(shapes)]
    graph = helper.make_graph(nodes, "g", inputs, outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("shape", "bound"),
    [
        ([2, 3], (2, 3)),
        (["batch", 3], (1, 3)),
        (["N", 3, 8, 8], (1, 3, 8, 8)),
        (["batch_size", 3], (1, 3)),
        (["unk__12", 3], (1, 3)),
        ([None, 3], (1, 3)),
        (["anything", 3], (1, 3)),
        ([], ()),
    ],
)
def test_static_shapes_and_batches_need_nothing(shape: list[int | str | None], bound: tuple[int, ...]) -> None:
    model = identity(shape)
    assert bind_input_shapes(model, {})[0].shape == bound
    assert tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim) == bound


def test_every_dimension_that_cannot_be_guessed_is_named_at_once() -> None:
    with pytest.raises(MissingDimensions) as raised:
        bind_input_shapes(identity(["batch", 3, "height", None], ["batch", "length", 4]), {})
    assert raised.value.details["dimensions"] == [
        {"input": "x0", "axis": 2, "name": "height"},
        {"input": "x0", "axis": 3, "name": None},
        {"input": "x1", "axis": 1, "name": "length"},
    ]
    assert "x0 axis 2 (height)" in raised.value.message


def test_an_input_of_unknown_rank_needs_its_whole_shape() -> None:
    with pytest.raises(MissingDimensions) as raised:
        bind_input_shapes(identity(None), {})
    assert raised.value.details["dimensions"] == [{"input": "x0", "axis": None, "name": None}]
    assert bind_input_shapes(identity(None), {"x0": (2, 5)})[0].shape == (2, 5)


def test_a_name_that_is_given_once_binds_all_inputs() -> None:
    model = identity(["batch", "length"], ["batch", "length", 4])
    first, second = bind_input_shapes(model, {"x0": (2, 7)})
    assert (first.shape, second.shape) == ((2, 7), (2, 7, 4))


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"image": (1, 3)}, "unknown_input"),
        ({"x0": (1, 3, 5)}, "shape_mismatch"),
        ({"x0": (1, 4)}, "shape_mismatch"),
        ({"x0": (0, 3)}, "shape_mismatch"),
        ({"x0": (2, 3), "x1": (3, 5)}, "shape_mismatch"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(given: dict[str, tuple[int, ...]], code: str) -> None:
    with pytest.raises(ModelError) as raised:
        bind_input_shapes(identity(["batch", 3], ["batch", 5]), given)
    assert raised.value.code == code
    assert "x0" in raised.value.hint or "x1" in raised.value.hint


def test_initializers_listed_as_inputs_are_not_inputs() -> None:
    model = models.convolutional()
    weight = model.graph.initializer[0]
    model.graph.input.append(helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    assert [value.name for value in real_inputs(model.graph)] == ["image"]


def test_operators_that_contradict_the_input_shape_are_a_shape_mismatch() -> None:
    model = models.perceptron(batch="batch")
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[1].dim_param = "features"
    bind_input_shapes(model, {"x": (4, 31)})
    with pytest.raises(ModelError, match="do not fit") as raised:
        infer_shapes(model)
    assert raised.value.code == "shape_mismatch"


def test_shapes_are_inferred_from_the_bound_inputs() -> None:
    model = identity(["batch", 3], [4, "b"])
    bind_input_shapes(model, {"x1": (4, 9)})
    known = infer_shapes(model)
    assert (known["y0"].shape, known["y1"].shape) == ((1, 3), (4, 9))


def test_a_shape_that_depends_on_data_is_not_known() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])
    result = helper.make_tensor_value_info("where", TensorProto.INT64, [1, "found"])
    graph = helper.make_graph([helper.make_node("NonZero", ["x"], ["where"])], "g", [value], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert "where" not in infer_shapes(model)
