"""Models and files that are made to hurt. Each maker draws its figures from ``rng``, so that no two are alike."""

from __future__ import annotations

import gzip
import io
import pickle
import random
import tarfile
import zipfile
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests import models
from tests.fuzz import wire
from tests.fuzz.bombs import constant_bomb, doubling, functions_of_functions, rank, sizes
from tests.fuzz.seeds import constants, integers, network

Maker = Callable[[random.Random], bytes]
PATHS = (
    "weights.bin",
    "../weights.bin",
    "../../../../etc/passwd",
    "/etc/passwd",
    "/proc/self/environ",
    "/dev/zero",
    "link.bin",
    "folder/../../weights.bin",
    "./link/passwd",
    "C:\\Windows\\win.ini",
    "file:///etc/passwd",
    "weights.bin\0.txt",
    "",
)


def external_data(rng: random.Random) -> bytes:
    """A tensor that lies in another file, in any place where a tensor can be."""
    outside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 3])
    outside.external_data.add(key="location", value=rng.choice(PATHS))
    if rng.random() < 0.5:
        outside.external_data.add(key="offset", value=str(rng.choice((0, -1, 2**63))))
    if rng.random() < 0.8:
        outside.data_location = TensorProto.EXTERNAL
    inside = numpy_helper.from_array(np.zeros((2, 3), np.float32), "w")
    sparse = onnx.SparseTensorProto(values=outside, indices=integers("i", 0), dims=[2, 3])
    model = network([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[inside])
    node, graph = model.graph.node[0], model.graph
    branch = helper.make_graph([], "g", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3])], [outside])
    place = rng.randrange(10)
    if place == 0:
        graph.initializer[0].CopyFrom(outside)
    elif place == 1:
        graph.sparse_initializer.add().CopyFrom(sparse)
    elif place == 2:
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=outside)
    elif place == 3:
        node.attribute.add(name="values", type=onnx.AttributeProto.TENSORS).tensors.append(outside)
    elif place == 4:
        node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    elif place == 5:
        node.attribute.add(name="s", type=onnx.AttributeProto.SPARSE_TENSORS).sparse_tensors.append(sparse)
    elif place == 6:
        for _ in range(rng.randrange(1, 6)):
            choice = helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)
            branch = helper.make_graph([choice], "g", [], [helper.make_tensor_value_info("w", 1, [2, 3])])
        graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch))
    else:
        constant = onnx.AttributeProto(name="value", type=onnx.AttributeProto.TENSOR, t=outside)
        if place == 7:
            model.functions.add(name="F", domain="local").node.add(op_type="Constant", output=["w"]).attribute.append(
                constant
            )
        elif place == 8:
            model.functions.add(name="F", domain="local").attribute_proto.append(constant)
        else:
            model.training_info.add().algorithm.CopyFrom(branch)
    return model.SerializeToString()


def cycle(rng: random.Random) -> bytes:
    """Values, or functions, that depend on themselves."""
    length = rng.choice((1, 2, 3, 50, 2000))
    names = [f"v{index}" for index in range(length)]
    ring = [helper.make_node("Add", ["x", names[index - 1]], [names[index]]) for index in range(length)]
    place = rng.randrange(3)
    if place == 0:
        return network([*ring, helper.make_node("Relu", ["v0"], ["y"])]).SerializeToString()
    if place == 1:
        body = helper.make_graph(ring, "b", [], [helper.make_tensor_value_info("v0", TensorProto.FLOAT, [2, 3])])
        choice = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
        condition = numpy_helper.from_array(np.asarray(False), "c")
        return network([choice], initializers=[condition]).SerializeToString()
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            "local", name, ["a"], ["b"], [helper.make_node(names[index - 1], ["a"], ["b"], domain="local")], opsets
        )
        for index, name in enumerate(names)
    ]
    return network([helper.make_node("v0", ["x"], ["y"], domain="local")], functions=functions).SerializeToString()


def nesting(rng: random.Random) -> bytes:
    """Branches inside of branches, deeper than any parser likes."""
    return wire.nested_branches(rng.choice((1, 3, 8, 15, 16, 17, 24, 30, 34, 60, 200)))


def long_chain(rng: random.Random) -> bytes:
    """Operators behind each other."""
    return wire.chain(rng.choice((40, 120, 17_000, 60_000)))


def operands(rng: random.Random) -> bytes:
    """An operator, or a graph, with very many inputs or outputs."""
    count = rng.choice((30, 1025, 20_000))
    kind = rng.randrange(3)
    if kind == 0:
        return network([helper.make_node("Sum", ["x"] * count, ["y"])]).SerializeToString()
    if kind == 1:
        names = ["y", *(f"y{index}" for index in range(count - 1))]
        nodes = [helper.make_node("Split", ["x"], names, axis=0, num_outputs=count)]
        return network(nodes, inputs={"x": [count, 3]}, outputs={"y": [1, 3]}).SerializeToString()
    outputs: dict[str, Sequence[int | str]] = {f"y{index}": [2, 3] for index in range(count)}
    nodes = [helper.make_node("Relu", ["x"], [name]) for name in outputs]
    return network(nodes, outputs=outputs).SerializeToString()


def attributes(rng: random.Random) -> bytes:
    """Attributes and names that are far too long, or that no operator can mean."""
    length = rng.choice((70_000, 1_000_000))
    kind = rng.randrange(5)
    node = helper.make_node("Relu", ["x"], ["y"])
    if kind == 0:
        node.attribute.add(name="axes", type=onnx.AttributeProto.INTS, ints=[1] * length)
    elif kind == 1:
        node.attribute.add(name="text", type=onnx.AttributeProto.STRING, s=b"a" * length)
    elif kind == 2:
        node.name = "n" * length
    elif kind == 3:
        node = helper.make_node(
            "Einsum", ["x"], ["y"], equation=rng.choice(("i" * 3000, "ij->" + "ij" * 40, "...->...", ",,,"))
        )
    else:
        pool = {"kernel_shape": [rng.choice((0, -1, 2**31, 2**40))] * 2, "strides": [rng.choice((0, -1, 2**62))] * 2}
        node = helper.make_node("MaxPool", ["x"], ["y"], **pool)
        return network([node], inputs={"x": [1, 1, 8, 8]}, outputs={"y": [1, 1, 8, 8]}).SerializeToString()
    return network([node]).SerializeToString()


def duplicates(rng: random.Random) -> bytes:
    """One name for two things."""
    model = models.perceptron()
    kind = rng.randrange(6)
    if kind == 0:
        model.graph.node.add().CopyFrom(model.graph.node[rng.randrange(4)])
    elif kind == 1:
        model.graph.output.add().CopyFrom(model.graph.output[0])
    elif kind == 2:
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
    elif kind == 3:
        model.graph.input.add().CopyFrom(model.graph.input[0])
    elif kind == 4:
        model.opset_import.append(helper.make_opsetid("ai.onnx", 7))
    else:
        model = onnx.load_from_string(
            network([helper.make_node("F", ["x"], ["y"], domain="local")]).SerializeToString()
        )
        for _ in range(2):
            body = [helper.make_node(rng.choice(("Relu", "Neg")), ["a"], ["b"])]
            model.functions.append(
                helper.make_function("local", "F", ["a"], ["b"], body, [helper.make_opsetid("", 18)])
            )
    return model.SerializeToString()


def tensors(rng: random.Random) -> bytes:
    """Constants whose bytes, shape and type do not agree."""
    model = constants() if rng.random() < 0.5 else models.perceptron()
    weight = rng.choice(list(model.graph.initializer))
    kind = rng.randrange(6)
    if kind == 0:
        weight.raw_data = weight.raw_data[: rng.randrange(len(weight.raw_data))]
    elif kind == 1:
        weight.raw_data += rng.randbytes(rng.choice((1, 4, 1000)))
    elif kind == 2:
        weight.data_type = rng.choice((0, 8, 14, 15, 16, 17, 21, 22, 23, 77, -1))
    elif kind == 3:
        del weight.dims[:]
        weight.dims.extend(rng.choice(([2**32, 2**32], [-1], [0], [2**31], [3, -3], [1] * 64)))
    elif kind == 4:
        weight.float_data.extend([1.0] * rng.choice((1, 1000)))
    else:
        weight.ClearField("raw_data")
        weight.int32_data.extend([1] * rng.choice((0, 1, 7)))
    return model.SerializeToString()


def other_files(rng: random.Random) -> bytes:
    """What is no model, with a model in it or behind it."""
    model = models.perceptron().SerializeToString()
    packed = io.BytesIO()
    name = rng.choice(("model.onnx", "../../model.onnx", "/tmp/model.onnx"))
    kind = rng.randrange(9)
    if kind == 0:
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name, model)
        return packed.getvalue() + rng.choice((b"", model))
    if kind == 1:
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr(name, b"")
        return model + packed.getvalue()
    if kind == 2:
        with tarfile.open(fileobj=packed, mode="w") as archive_file:
            entry = tarfile.TarInfo(name)
            entry.size = len(model)
            archive_file.addfile(entry, io.BytesIO(model))
        return packed.getvalue()
    if kind == 3:
        return gzip.compress(model, mtime=0)
    if kind == 4:
        return pickle.dumps({"model": model})
    if kind == 5:
        return bytes(rng.choice((1, 4096, 4 * 1024**2)))
    if kind == 6:
        np.savez(packed, x=np.zeros(3))
        return packed.getvalue()
    if kind == 7:
        return b"\x7fELF" + rng.randbytes(400)
    return rng.choice((b"", b"{}", b"version https://git-lfs.github.com/spec/v1\n", b"<html>", b"\xff" * 500))


def lengths(rng: random.Random) -> bytes:
    """Fields that say they are longer or shorter than they are."""
    graph = wire.field(1, wire.relu(b"x", b"y")) + wire.field(2, b"g") + wire.field(12, wire.value_info(b"y", 2, 3))
    graph += wire.field(11, wire.value_info(b"x", 2, 3))
    lie = rng.choice((0, 1, len(graph) - 1, len(graph) + 1, 2**31, 2**32, 2**63, 2**64 - 1, 2**70))
    whole = wire.model_of(graph)
    kind = rng.randrange(3)
    if kind == 0:
        return wire.field(1, 10) + wire.field(7, graph, length=lie) + wire.field(8, wire.field(2, 18))
    if kind == 1:
        return whole + wire.field(rng.choice((7, 20, 25, 99)), b"", length=lie)
    return whole + wire.varint(rng.choice((0, 3, 4, 7, 2**29 << 3))) * rng.randrange(1, 50)


MAKERS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        external_data,
        constant_bomb,
        doubling,
        cycle,
        functions_of_functions,
        rank,
        sizes,
        nesting,
        long_chain,
        operands,
        attributes,
        duplicates,
        tensors,
        other_files,
        lengths,
    )
}
