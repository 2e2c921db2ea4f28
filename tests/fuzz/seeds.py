"""Valid models to begin with: the tests' own, those that the onnx package ships for exporters, and one for each of many
operators."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import models

_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
_LARGEST_BYTES = 40_000
Shape = Sequence[int | str]


@cache
def seeds() -> dict[str, bytes]:
    """Serialized models by name, always in the same order."""
    found = {
        f"{folder}/{path.parent.name}": path.read_bytes()
        for folder in ("simple", "pytorch-operator", "pytorch-converted")
        for path in sorted((_DATA / folder).glob("*/model.onnx"))
        if path.stat().st_size < _LARGEST_BYTES
    }
    own = {
        "perceptron": models.perceptron(),
        "dynamic_batch": models.dynamic_batch(),
        "convolutional": models.convolutional(channels=4, side=8),
        "two_convolutions": models.two_convolutions(channels=4, side=6),
        "branch": branch(),
        "loop": loop(),
        "function": function(),
        "constants": constants(),
        **{f"operator/{name}": model for name, model in operators().items()},
    }
    return found | {name: model.SerializeToString() for name, model in own.items()}


def network(
    nodes: Sequence[onnx.NodeProto],
    *,
    inputs: dict[str, Shape] | None = None,
    outputs: dict[str, Shape] | None = None,
    initializers: Sequence[onnx.TensorProto] = (),
    functions: Sequence[onnx.FunctionProto] = (),
    opset: int = 18,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model from ``x`` (2, 3) to ``y`` (2, 3), unless it is told otherwise; it is not checked."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in (inputs or {"x": [2, 3]}).items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in (outputs or {"y": [2, 3]}).items()],
        list(initializers),
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, functions=list(functions), opset_imports=imports, ir_version=10)


def integers(name: str, *values: int) -> onnx.TensorProto:
    """A one-dimensional constant of 64-bit integers."""
    return numpy_helper.from_array(np.asarray(values, np.int64), name)


def branch() -> onnx.ModelProto:
    """An If on a constant, whose branches read a value from outside."""
    then, other = (
        helper.make_graph(
            [helper.make_node(kind, ["h"], [f"{kind}.out"])],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}.out", TensorProto.FLOAT, [2, 3])],
        )
        for kind in ("Relu", "Neg")
    )
    nodes = [
        helper.make_node("Exp", ["x"], ["h"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=then, else_branch=other),
    ]
    return network(nodes, initializers=[numpy_helper.from_array(np.asarray(True), "condition")])


def loop() -> onnx.ModelProto:
    """A Loop of three rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["v", "v"], ["v2"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [2, 3]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v2", TensorProto.FLOAT, [2, 3]),
        ],
    )
    rounds = [numpy_helper.from_array(np.asarray(3), "n"), numpy_helper.from_array(np.asarray(True), "go0")]
    return network([helper.make_node("Loop", ["n", "go0", "x"], ["y"], body=body)], initializers=rounds)


def function() -> onnx.ModelProto:
    """A function that calls another one, with a default attribute."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    scale = helper.make_node("LeakyRelu", ["a"], ["b"])
    scale.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    inner = helper.make_function(
        "local", "Inner", ["a"], ["b"], [scale], opsets, attribute_protos=[helper.make_attribute("slope", 0.1)]
    )
    outer = helper.make_function(
        "local",
        "Outer",
        ["a"],
        ["c"],
        [helper.make_node("Inner", ["a"], ["b"], domain="local"), helper.make_node("Add", ["a", "b"], ["c"])],
        opsets,
    )
    return network([helper.make_node("Outer", ["x"], ["y"], domain="local")], functions=[inner, outer])


def constants() -> onnx.ModelProto:
    """Shape arithmetic and filled constants, as exporters write them."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node(
            "ConstantOfShape", ["shape"], ["ones"], value=helper.make_tensor("v", TensorProto.FLOAT, [1], [1])
        ),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Mul", ["ones", "half"], ["halves"]),
        helper.make_node("Add", ["x", "halves"], ["sum"]),
        helper.make_node("Concat", ["minus", "three"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["sum", "wanted"], ["y"]),
    ]
    return network(nodes, initializers=[integers("minus", -1), integers("three", 3)])


def operators() -> dict[str, onnx.ModelProto]:
    """One operator each, with attributes and small constants that a mutation can spoil."""
    rng = np.random.default_rng(0)

    def weights(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    def ints(*values: int) -> np.ndarray:
        return np.asarray(values, np.int64)

    image: dict[str, Shape] = {"x": [1, 4, 8, 8]}
    rows: dict[str, Shape] = {"x": [2, 6]}
    # name → operator, inputs, constants, attributes
    table: list[tuple[str, dict[str, Shape], list[np.ndarray | None], dict[str, Any]]] = [
        ("Conv", image, [weights(4, 2, 3, 3), weights(4)], {"group": 2, "pads": [1, 1, 1, 1], "strides": [2, 1]}),
        ("ConvTranspose", image, [weights(4, 2, 3, 3)], {"strides": [2, 2], "output_padding": [1, 1]}),
        ("MaxPool", image, [], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
        ("AveragePool", image, [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
        ("LpPool", image, [], {"kernel_shape": [2, 2], "p": 2}),
        ("GlobalAveragePool", image, [], {}),
        ("BatchNormalization", image, [weights(4), weights(4), weights(4), np.abs(weights(4))], {"epsilon": 1e-5}),
        ("InstanceNormalization", image, [weights(4), weights(4)], {}),
        ("LayerNormalization", rows, [weights(6), weights(6)], {"axis": -1}),
        ("LRN", image, [], {"size": 3}),
        ("Resize", image, [None, np.asarray([1, 1, 2, 2], np.float32)], {"mode": "linear"}),
        ("DepthToSpace", image, [], {"blocksize": 2}),
        ("SpaceToDepth", image, [], {"blocksize": 2}),
        ("Pad", rows, [ints(0, 1, 0, 2)], {"mode": "constant"}),
        ("Slice", rows, [ints(0, 1), ints(2, 5), ints(0, 1), ints(1, 2)], {}),
        ("Gather", rows, [ints(0, 5, 2)], {"axis": 1}),
        ("GatherElements", rows, [ints(0, 1).reshape(1, 2)], {"axis": 1}),
        ("GatherND", rows, [ints(0, 1).reshape(1, 2)], {}),
        ("ScatterND", rows, [ints(1).reshape(1, 1), weights(1, 6)], {}),
        ("Reshape", rows, [ints(3, -1)], {}),
        ("Transpose", rows, [], {"perm": [1, 0]}),
        ("Squeeze", {"x": [1, 6]}, [ints(0)], {}),
        ("Unsqueeze", rows, [ints(0, 3)], {}),
        ("Expand", rows, [ints(4, 2, 6)], {}),
        ("Tile", rows, [ints(2, 3)], {}),
        ("Concat", rows, [weights(2, 2)], {"axis": 1}),
        ("Split", rows, [ints(2, 4)], {"axis": 1}),
        ("TopK", rows, [ints(2)], {"axis": 1}),
        ("ArgMax", rows, [], {"axis": 1, "keepdims": 0}),
        ("CumSum", rows, [np.asarray(1)], {}),
        ("OneHot", {"x": [4]}, [ints(5), np.asarray([0, 1], np.float32)], {"axis": -1}),
        ("ReduceSum", rows, [ints(1)], {"keepdims": 1}),
        ("ReduceMean", rows, [ints(0)], {}),
        ("Softmax", rows, [], {"axis": 1}),
        ("Gemm", rows, [weights(6, 4), weights(4)], {"alpha": 0.5}),
        ("MatMul", rows, [weights(6, 4)], {}),
        ("Einsum", rows, [weights(6, 4)], {"equation": "ij,jk->ik"}),
        ("Clip", rows, [np.asarray(0, np.float32), np.asarray(6, np.float32)], {}),
        ("Where", rows, [], {}),
        ("Cast", rows, [], {"to": TensorProto.INT32}),
        ("Pow", rows, [ints(2)], {}),
        ("Div", rows, [weights(6)], {}),
        ("Mod", rows, [weights(6)], {"fmod": 1}),
        ("QuantizeLinear", rows, [np.asarray(0.1, np.float32), np.asarray(3, np.uint8)], {}),
        ("EyeLike", rows, [], {"k": 1}),
        ("Trilu", rows, [np.asarray(0)], {}),
        ("GridSample", image, [np.zeros((1, 3, 3, 2), np.float32)], {"mode": "bilinear"}),
        ("RandomUniformLike", rows, [], {"low": 0.0}),
        ("HardSwish", rows, [], {}),
        ("Gelu", rows, [], {}),
    ]
    made: dict[str, onnx.ModelProto] = {}
    for name, inputs, operands, attributes in table:
        constant = [(f"c{index}" if value is not None else "", value) for index, value in enumerate(operands)]
        names = [*inputs, *(each for each, _ in constant)]
        if name == "Where":
            names = ["condition", "x", "x"]
            constant = [("condition", np.asarray([True, False] * 3))]
        if name == "OneHot":
            nodes = [helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64)]
            nodes.append(helper.make_node(name, ["i", "c0", "c1"], ["y"], **attributes))
        else:
            outputs = {"Split": ["y", "z"], "TopK": ["y", "z"]}.get(name, ["y"])
            nodes = [helper.make_node(name, names, outputs, **attributes)]
        initializers = [numpy_helper.from_array(value, each) for each, value in constant if value is not None]
        opset = 20 if name in ("Gelu", "GridSample") else 18
        model = network(nodes, inputs=inputs, initializers=initializers, opset=opset)
        # Shape and type are left to inference.
        model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
        made[name] = onnx.shape_inference.infer_shapes(model)
    return made
