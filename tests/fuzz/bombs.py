"""Models of a few bytes that stand for gigabytes. Each maker draws its figures from ``rng``: no two are alike."""

from __future__ import annotations

import random

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz.seeds import integers, network


def constant_bomb(rng: random.Random) -> bytes:
    """A few bytes that stand for gigabytes, at the top, in a branch, or in a function."""
    side = 2 ** rng.choice((15, 16, 20, 24, 31, 40))
    small = numpy_helper.from_array(np.ones((1, 1), np.float32), "one")
    given = [
        small,
        integers("size", side, side),
        integers("n", min(side * 8, 2**62)),
        integers("pads", 0, 0, side, side),
    ]
    given += [
        numpy_helper.from_array(np.asarray(0, np.int64), "zero"),
        numpy_helper.from_array(np.asarray(1, np.int64), "step"),
        numpy_helper.from_array(np.asarray(min(side * side, 2**62), np.int64), "stop"),
        numpy_helper.from_array(np.asarray([0, 1], np.float32), "off_on"),
        numpy_helper.from_array(np.asarray([side, side], np.float32), "scales"),
    ]
    nodes = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["size"], ["huge"])],
        "Expand": [helper.make_node("Expand", ["one", "size"], ["huge"])],
        "Tile": [helper.make_node("Tile", ["one", "size"], ["huge"])],
        "Pad": [helper.make_node("Pad", ["one", "pads"], ["huge"])],
        "Resize": [helper.make_node("Resize", ["one", "", "scales"], ["huge"])],
        "Range": [
            helper.make_node("Range", ["zero", "stop", "step"], ["range"]),
            helper.make_node("Cast", ["range"], ["huge"], to=TensorProto.FLOAT),
        ],
        "OneHot": [helper.make_node("OneHot", ["size", "n", "off_on"], ["huge"])],
        "RandomNormal": [helper.make_node("RandomNormal", [], ["huge"], shape=[side, side])],
        "EyeLike": [
            helper.make_node("ConstantOfShape", ["size"], ["filled"]),
            helper.make_node("EyeLike", ["filled"], ["huge"], dtype=TensorProto.FLOAT),
        ],
        "MatMul": [
            helper.make_node("ConstantOfShape", ["size"], ["filled"]),
            helper.make_node("MatMul", ["filled", "filled"], ["huge"]),
        ],
    }[
        rng.choice(
            (
                "ConstantOfShape",
                "Expand",
                "Tile",
                "Pad",
                "Resize",
                "Range",
                "OneHot",
                "RandomNormal",
                "EyeLike",
                "MatMul",
            )
        )
    ]
    reduced = [*nodes, helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0)]
    last = helper.make_node("Add", ["x", "sum"], ["y"])
    place = rng.randrange(3)
    if place == 0:
        return network([*reduced, last], initializers=given).SerializeToString()
    if place == 1:
        result = helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])
        body = helper.make_graph(reduced, "b", [], [result], given if rng.random() < 0.5 else [])
        condition = numpy_helper.from_array(np.asarray(True), "c")
        choice = helper.make_node("If", ["c"], ["s"], then_branch=body, else_branch=body)
        initializers = [condition, *([] if body.initializer else given)]
        return network(
            [choice, helper.make_node("Add", ["x", "s"], ["y"])], initializers=initializers
        ).SerializeToString()
    written = [helper.make_node("Constant", [], [each.name], value=each) for each in given]
    opsets = [helper.make_opsetid("", 18)]
    bomb = helper.make_function("local", "Bomb", ["x"], ["y"], [*written, *reduced, last], opsets)
    return network([helper.make_node("Bomb", ["x"], ["y"], domain="local")], functions=[bomb]).SerializeToString()


def doubling(rng: random.Random) -> bytes:
    """A value that doubles at each of many steps: by Concat, as a shape, or by growing to the square."""
    steps = rng.choice((8, 24, 40, 62))
    kind = rng.randrange(3)
    first = [integers("v0", 1, 2), numpy_helper.from_array(np.ones((2, 2), np.float32), "w0")]
    if kind == 0:
        nodes = [helper.make_node("Concat", [f"v{i}", f"v{i}"], [f"v{i + 1}"], axis=0) for i in range(steps)]
        nodes.append(helper.make_node("Expand", ["x", f"v{steps}"], ["y"]))
    elif kind == 1:
        nodes = [helper.make_node("Mul", [f"v{i}", f"v{i}"], [f"v{i + 1}"]) for i in range(steps)]
        nodes.append(helper.make_node("Expand", ["x", f"v{steps}"], ["y"]))
    else:
        nodes = [helper.make_node("Concat", [f"w{i}", f"w{i}"], [f"w{i + 1}"], axis=i % 2) for i in range(steps)]
        nodes += [
            helper.make_node("ReduceSum", [f"w{steps}"], ["s"], keepdims=0),
            helper.make_node("Add", ["x", "s"], ["y"]),
        ]
    return network(nodes, initializers=first).SerializeToString()


def doubling_functions(levels: int) -> list[onnx.FunctionProto]:
    """Each calls the next twice: ``F0`` has 2**(levels - 1) operators when it is written out."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    functions = []
    for level in range(levels):
        below = f"F{level + 1}"
        calls = [
            helper.make_node(below, ["a"], ["c"], domain="local"),
            helper.make_node(below, ["c"], ["b"], domain="local"),
        ]
        nodes = calls if level < levels - 1 else [helper.make_node("Relu", ["a"], ["b"])]
        functions.append(helper.make_function("local", f"F{level}", ["a"], ["b"], nodes, opsets))
    return functions


def functions_of_functions(rng: random.Random) -> bytes:
    functions = doubling_functions(rng.choice((4, 10, 17, 30, 64, 300)))
    rng.shuffle(functions)
    return network([helper.make_node("F0", ["x"], ["y"], domain="local")], functions=functions).SerializeToString()


def rank(rng: random.Random) -> bytes:
    """Too many dimensions: declared, of a constant, or made on the way."""
    dimensions = rng.choice((9, 16, 17, 33, 65, 300, 5000))
    kind = rng.randrange(4)
    if kind == 0:
        shape = [1] * dimensions
        nodes = [helper.make_node("Relu", ["x"], ["y"])]
        return network(nodes, inputs={"x": shape}, outputs={"y": shape}).SerializeToString()
    if kind == 1:
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1] * dimensions, raw_data=bytes(4))
        return network([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight]).SerializeToString()
    if kind == 2:
        axes = integers("axes", *range(dimensions))
        nodes = [helper.make_node("Unsqueeze", ["x", "axes"], ["h"]), helper.make_node("Squeeze", ["h", "axes"], ["y"])]
        return network(nodes, initializers=[axes]).SerializeToString()
    shape_of = integers("shape", *[1] * dimensions, -1)
    nodes = [helper.make_node("Reshape", ["x", "shape"], ["h"]), helper.make_node("Transpose", ["h"], ["y"])]
    model = network(nodes, initializers=[shape_of])
    model.graph.output[0].CopyFrom(onnx.ValueInfoProto(name="y"))
    return model.SerializeToString()


def sizes(rng: random.Random) -> bytes:
    """Inputs and products of absurd size."""
    side = rng.choice((2**16, 2**20, 2**31 - 1, 2**31, 2**32, 2**62, 2**63 - 1, -1, 0))
    kind = rng.randrange(3)
    if kind == 0:
        shape = [side] * rng.randrange(1, 5)
        nodes = [helper.make_node("Relu", ["x"], ["y"])]
        return network(nodes, inputs={"x": shape}, outputs={"y": shape}).SerializeToString()
    if kind == 1:
        nodes = [helper.make_node("MatMul", ["x", "z"], ["y"])]
        return network(nodes, inputs={"x": [side, 1], "z": [1, side]}, outputs={"y": [side, side]}).SerializeToString()
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[abs(side)] * rng.randrange(1, 4))
    weight.raw_data = bytes(rng.choice((0, 4, 4096)))
    return network([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[weight]).SerializeToString()
