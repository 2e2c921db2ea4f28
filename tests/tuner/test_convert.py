"""Importing into Relax: the model's signature, old operators with their meaning, refusals that name the operator."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper, numpy_helper
from tvm import relax

from tests import models
from tests.tuner.networks import compile_model
from tuner.errors import ModelError
from tuner.frontend.convert import import_model
from tuner.verify import verify_module


def small_model(
    nodes: list[onnx.NodeProto],
    *,
    opset: int,
    inputs: dict[str, list[int | str]],
    outputs: list[str],
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def constants_of(module: tvm.IRModule) -> int:
    found = 0

    def visit(expression: relax.Expr) -> None:
        nonlocal found
        found += isinstance(expression, tvm.ir.GenericConst)

    relax.analysis.post_order_visit(module["main"], visit)
    return found


def test_weights_are_constants_and_the_signature_is_the_models(convolutional_model: Path) -> None:
    imported = import_model(convolutional_model)
    assert [parameter.name for parameter in imported.module["main"].params] == ["image"]
    assert constants_of(imported.module) >= 4
    assert [spec.name for spec in imported.outputs] == ["logits"]


def test_several_outputs_keep_their_order_and_names(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("Neg", ["x"], ["negated"]),
        helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
    ]
    outputs = ["largest", "negated", "positive"]
    model = small_model(nodes, opset=13, inputs={"x": [2, 3]}, outputs=outputs)
    network = compile_model(model, tmp_path)
    assert [(spec.name, spec.shape) for spec in network.imported.outputs] == [
        ("largest", ()),
        ("negated", (2, 3)),
        ("positive", (2, 3)),
    ]
    assert _verify(network).passed


def test_shapes_computed_in_the_graph_are_folded(tmp_path: Path) -> None:
    """What PyTorch exports for ``x.view(x.size(0), -1)`` with a dynamic batch."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"], axis=0),
        helper.make_node("Unsqueeze", ["batch", "axes"], ["batch1"]),
        helper.make_node("Concat", ["batch1", "minus"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["y"]),
    ]
    constants = {"zero": np.asarray(0), "axes": np.asarray([0]), "minus": np.asarray([-1])}
    model = small_model(nodes, opset=13, inputs={"x": ["N", 3, 4]}, outputs=["y"], constants=constants)
    imported = import_model(models.write(model, tmp_path / "view.onnx"), {"x": (5, 3, 4)})
    assert imported.outputs[0].shape == (5, 12)
    body = str(imported.module)
    assert "shape_of" not in body
    assert "take" not in body


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        (helper.make_node("Slice", ["x"], ["y"], axes=[1, 2], starts=[1, 0], ends=[3, -1]), 9),
        (helper.make_node("Upsample", ["x"], ["y"], scales=[1.0, 1.0, 2.0, 2.0], mode="nearest"), 7),
        (helper.make_node("Clip", ["x"], ["y"], min=-0.5, max=0.5), 6),
        (helper.make_node("Pad", ["x"], ["y"], pads=[0, 0, 1, 1, 0, 0, 2, 0], value=1.5), 2),
        (helper.make_node("Squeeze", ["x"], ["y"], axes=[0]), 11),
        (helper.make_node("Unsqueeze", ["x"], ["y"], axes=[0, 5]), 11),
        (helper.make_node("Softmax", ["x"], ["y"], axis=1), 11),
        (helper.make_node("ReduceSum", ["x"], ["y"], axes=[1], keepdims=0), 11),
        (helper.make_node("LRN", ["x"], ["y"], size=3, alpha=0.5), 9),
        (helper.make_node("Split", ["x"], ["y", "z"], axis=1, split=[1, 3]), 11),
    ],
    ids=lambda value: value.op_type if isinstance(value, onnx.NodeProto) else None,
)
def test_old_operators_keep_their_meaning(tmp_path: Path, node: onnx.NodeProto, opset: int) -> None:
    model = small_model([node], opset=opset, inputs={"x": [1, 4, 5, 6]}, outputs=list(node.output))
    assert _verify(compile_model(model, tmp_path)).passed


def test_a_resize_of_opset_10_keeps_its_meaning(tmp_path: Path) -> None:
    node = helper.make_node("Resize", ["x", "scales"], ["y"], mode="nearest")
    constants = {"scales": np.asarray([1, 1, 2, 2], np.float32)}
    model = small_model([node], opset=10, inputs={"x": [1, 2, 3, 4]}, outputs=["y"], constants=constants)
    assert _verify(compile_model(model, tmp_path)).passed


def test_attributes_that_the_frontend_refuses_name_their_operator(tmp_path: Path) -> None:
    weight = {"w": np.ones((2, 2, 3, 3), np.float32)}
    node = helper.make_node("GridSample", ["x", "grid"], ["y"], mode="cubic", padding_mode="reflection")
    inputs = {"x": [1, 2, 4, 4, 4], "grid": [1, 3, 3, 3, 3]}
    model = small_model([node], opset=20, inputs=inputs, outputs=["y"], constants=weight)
    with pytest.raises(ModelError) as raised:
        import_model(models.write(model, tmp_path / "grid.onnx"))
    assert raised.value.code == "import_failed"
    assert raised.value.details["operator"] == "GridSample"


def test_an_operator_with_too_few_outputs_is_named(tmp_path: Path) -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2, 2])
    model = small_model([node], opset=12, inputs={"x": [1, 1, 4, 4]}, outputs=["y"])
    model.graph.output.append(helper.make_tensor_value_info("indices", TensorProto.INT64, [1, 1, 3, 3]))
    with pytest.raises(ModelError) as raised:
        import_model(models.write(model, tmp_path / "pool.onnx"))
    assert raised.value.details["operator"] == "MaxPool"


def test_an_output_whose_shape_depends_on_data_is_named(tmp_path: Path) -> None:
    model = small_model([helper.make_node("NonZero", ["x"], ["where"])], opset=13, inputs={"x": [4]}, outputs=[])
    model.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, [1, "found"]))
    with pytest.raises(ModelError, match="'where'") as raised:
        import_model(models.write(model, tmp_path / "nonzero.onnx"))
    assert raised.value.code == "dynamic_output"


def test_inputs_and_constants_may_be_outputs_too(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Constant", [], ["c"], value_float=1.5)]
    model = small_model(nodes, opset=13, inputs={"x": [2, 3]}, outputs=["x", "y", "c"])
    network = compile_model(model, tmp_path)
    assert [spec.name for spec in network.imported.outputs] == ["x", "y", "c"]
    assert _verify(network).passed


def test_exponents_of_another_type_are_cast(tmp_path: Path) -> None:
    node = helper.make_node("Pow", ["x", "p"], ["y"])
    model = small_model([node], opset=13, inputs={"x": [2, 3]}, outputs=["y"], constants={"p": np.asarray(2)})
    assert _verify(compile_model(model, tmp_path)).passed


def test_shapes_that_only_the_compiler_infers_complete_the_report(tmp_path: Path) -> None:
    constants = {name: np.linspace(0.5, 1.5, 4, dtype=np.float32) for name in ("s", "b")}
    node = helper.make_node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    model = small_model([node], opset=21, inputs={"x": [1, 4, 3, 3]}, outputs=["y"], constants=constants)
    network = compile_model(model, tmp_path)
    assert network.imported.preflight.outputs[0].shape == (1, 4, 3, 3)
    assert _verify(network).passed


def _verify(network):  # type: ignore[no-untyped-def]
    imported = network.imported
    return verify_module(
        network.module,
        network.samples,
        network.reference,
        inputs=imported.inputs,
        outputs=imported.outputs,
        threads=1,
    )
