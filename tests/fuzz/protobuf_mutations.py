"""Damage to a model that stays well-formed protobuf: other numbers, names, types, operators, parts of other models."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

import onnx

# fmt: off
_OPERATORS = (
    "Add", "ArgMax", "AveragePool", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape",
    "Conv", "ConvTranspose", "CumSum", "DepthToSpace", "Div", "Einsum", "Expand", "EyeLike", "Flatten", "Gather",
    "GatherND", "Gemm", "If", "LayerNormalization", "Loop", "LSTM", "MatMul", "MaxPool", "NonZero", "OneHot",
    "Pad", "Pow", "Range", "ReduceSum", "Relu", "Reshape", "Resize", "ScatterND", "Shape", "Size", "Slice",
    "Softmax", "Split", "Squeeze", "Sum", "Tile", "TopK", "Transpose", "Unsqueeze", "Where",
)
# fmt: on
_TEXTS = (
    "",
    "x",
    "y",
    "../../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "ü" * 40,
    "n" * 5000,
    "%s%n",
    "com.microsoft",
    "local",
)
_INTEGERS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    17,
    127,
    255,
    1024,
    2**15,
    2**16,
    2**24,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**62,
)
_INTEGER_64 = (2**63 - 1, -(2**63), -(2**31), -7, -3, -2, -1)
_FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-38, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
# Of protobuf's descriptors: kinds of fields as C++ has them.
_INT32, _INT64, _UINT32, _UINT64, _DOUBLE, _FLOAT, _BOOL, _ENUM, _STRING, _MESSAGE = range(1, 11)
_TYPE_BYTES = 12


def mutate_model(model: onnx.ModelProto, donor: onnx.ModelProto, rng: random.Random) -> None:
    """One to four mutations, in place."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        if rng.random() < 0.15:
            _change_operator(model, rng)
        else:
            _change_field(rng.choice(list(_messages(model))), donor, rng)


def _change_operator(model: onnx.ModelProto, rng: random.Random) -> None:
    nodes = [message for message in _messages(model) if isinstance(message, onnx.NodeProto)]
    if not nodes:
        return
    node = rng.choice(nodes)
    names = [name for each in nodes for name in (*each.input, *each.output)]
    kind = rng.randrange(4)
    if kind == 0:
        node.op_type = rng.choice(_OPERATORS)
    elif kind == 1 and names and node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    elif kind == 2 and names and node.output:
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    elif names:
        node.input.append(rng.choice(names))


def _change_field(message: Any, donor: onnx.ModelProto, rng: random.Random) -> None:
    present = [descriptor for descriptor, _ in message.ListFields()]
    descriptor = rng.choice(present if present and rng.random() < 0.85 else list(message.DESCRIPTOR.fields))
    value = getattr(message, descriptor.name)
    if hasattr(value, "extend"):
        _change_list(message, descriptor, value, donor, rng)
    elif descriptor.cpp_type == _MESSAGE:
        if rng.random() < 0.3:
            message.ClearField(descriptor.name)
        else:
            _copy_into(value, donor, rng)
    elif rng.random() < 0.1:
        message.ClearField(descriptor.name)
    else:
        setattr(message, descriptor.name, _scalar(descriptor, value, rng))


def _change_list(message: Any, descriptor: Any, values: Any, donor: onnx.ModelProto, rng: random.Random) -> None:
    kind = rng.randrange(6)
    if kind == 0 and len(values):
        del values[rng.randrange(len(values))]
    elif kind == 1 and len(values):
        values.extend([values[rng.randrange(len(values))]])
    elif kind == 2 and len(values):
        values.extend([values[rng.randrange(len(values))]] * rng.choice((2, 20, 300)))
    elif kind == 3 and len(values) > 1:
        order = copy.deepcopy(list(values))
        rng.shuffle(order)
        del values[:]
        values.extend(order)
    elif kind == 4 and rng.random() < 0.2:
        message.ClearField(descriptor.name)
    elif descriptor.cpp_type == _MESSAGE:
        _copy_into(
            values[rng.randrange(len(values))] if len(values) and rng.random() < 0.5 else values.add(), donor, rng
        )
    elif len(values):
        at = rng.randrange(len(values))
        values[at] = _scalar(descriptor, values[at], rng)
    else:
        values.append(_scalar(descriptor, _empty(descriptor), rng))


def _copy_into(message: Any, donor: onnx.ModelProto, rng: random.Random) -> None:
    same = [each for each in _messages(donor) if type(each) is type(message)]
    if same:
        message.CopyFrom(rng.choice(same))
    else:
        message.Clear()


def _scalar(descriptor: Any, value: Any, rng: random.Random) -> Any:
    kind = descriptor.cpp_type
    if kind == _BOOL:
        return not value
    if kind == _ENUM:
        return rng.choice(descriptor.enum_type.values).number
    if kind in (_DOUBLE, _FLOAT):
        return rng.choice(_FLOATS)
    if kind == _STRING and descriptor.type == _TYPE_BYTES:
        return _bytes(value, rng)
    if kind == _STRING:
        return rng.choice(_TEXTS)
    number = rng.choice((*_INTEGERS, *_INTEGER_64, value + 1, value - 1, -value, 2 * value))
    bits = 31 if kind in (_INT32, _UINT32) else 63
    if kind in (_UINT32, _UINT64):
        return abs(number) % 2**bits
    return max(-(2**bits), min(number, 2**bits - 1))


def _bytes(value: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    if kind == 0:
        return value[: rng.randrange(len(value) + 1)]
    if kind == 1:
        return value + rng.randbytes(rng.choice((1, 4, 100)))
    if kind == 2:
        return rng.randbytes(len(value))
    if kind == 3:
        return rng.choice(_TEXTS).encode()
    return bytes(len(value))


def _empty(descriptor: Any) -> Any:
    return b"" if descriptor.type == _TYPE_BYTES else "" if descriptor.cpp_type == _STRING else 0


def _messages(model: onnx.ModelProto) -> Iterator[Any]:
    left: list[Any] = [model]
    while left:
        message = left.pop()
        yield message
        for descriptor, value in message.ListFields():
            if descriptor.cpp_type == _MESSAGE:
                left.extend(value if hasattr(value, "extend") else [value])
