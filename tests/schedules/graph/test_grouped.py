"""Grouped 1×1 convolutions in whole vectors: the numbers of whole networks, and which shuffles they take over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from tvm import relax
from tvm.ir import IRModule, assert_structural_equal
from tvm.tirx import PrimFunc

from schedules.blocks import block_names
from schedules.graph.grouped import group_convolutions, shuffled
from schedules.graph.pipeline import prepare
from schedules.graph.rewrite import op_name
from schedules.grouped import OUTPUT, SHUFFLED_OUTPUT, SUMS
from tests.schedules import building, networks
from tests.schedules.networks import Network

LANES = building.VECTOR_BITS // 32
GROUPS, MEMBERS, ROWS, COLUMNS = 3, 17, 7, 9
"""The convolution in front of each shuffle below: 3 groups of 17 outputs, which 24 lanes hold."""


def shuffle(n: Network, t: str, *, groups: int, shape: tuple[int, int, int, int]) -> str:
    """ShuffleNet's reshape, transposition and reshape, in NCHW."""
    batch, channels, rows, columns = shape
    t = n.node("Reshape", t, n.value(np.array([batch, groups, channels // groups, rows, columns], dtype=np.int64)))
    t = n.node("Transpose", t, perm=[0, 2, 1, 3, 4])
    return n.node("Reshape", t, n.value(np.array(shape, dtype=np.int64)))


def unit(
    *, rows: int, columns: int, groups: int, outputs: int, strides: tuple[int, int] = (1, 1), batch: int = 1
) -> onnx.ModelProto:
    """ShuffleNet's unit: grouped convolution, shuffle, depthwise convolution, grouped convolution, residual."""
    n = Network(seed=41)
    inputs, channels = groups * 6, groups * outputs
    smaller = (-(-rows // strides[0]), -(-columns // strides[1]))
    t = n.conv("x", inputs=inputs, outputs=channels, kernel=1, groups=groups, strides=list(strides))
    t = shuffle(n, n.node("Relu", t), groups=groups, shape=(batch, channels, *smaller))
    t = n.conv(t, inputs=channels, outputs=channels, groups=channels)
    t = n.conv(t, inputs=channels, outputs=inputs, kernel=1, groups=groups)
    skipped = "x" if strides == (1, 1) else n.node("MaxPool", "x", kernel_shape=[1, 1], strides=list(strides))
    return n.model(n.node("Relu", n.node("Add", t, skipped)), shape=(batch, inputs, rows, columns))


def behind(
    between: Callable[[Network, str], str], *, groups: int = GROUPS, kernel: int = 1, members: int = MEMBERS
) -> onnx.ModelProto:
    """A grouped convolution, something, and a shuffle."""
    n = Network(seed=42)
    channels = GROUPS * members
    t = n.conv("x", inputs=12, outputs=channels, kernel=kernel, groups=GROUPS)
    t = shuffle(n, between(n, t), groups=groups, shape=(1, channels, ROWS, COLUMNS))
    return n.model(t, shape=(1, 12, ROWS, COLUMNS))


def operators(mod: IRModule) -> Counter[str]:
    bindings = mod["main"].body.blocks[0].bindings
    return Counter(name for binding in bindings if (name := op_name(binding.value)))


def functions(mod: IRModule) -> dict[str, IRModule]:
    return {
        var.name_hint: building.as_module(body) for var, body in mod.functions.items() if isinstance(body, PrimFunc)
    }


def assert_computes_the_same(model: onnx.ModelProto, *, seeds: tuple[int | None, ...] = (None, 5)) -> None:
    """As the operators say, without schedules, and with random ones."""
    data = networks.example_input(model)
    expected = networks.reference(model, data)
    for seed in seeds:
        actual = building.run(building.tuned_build(networks.imported(model), seed=seed), data)
        for output, wanted in zip(actual, expected, strict=True):
            assert output.shape == wanted.shape
            assert building.relative_error(output, wanted) < 1e-5


@pytest.mark.parametrize(
    ("rows", "columns", "groups", "outputs", "strides", "batch"),
    [
        (7, 9, 3, 17, (1, 1), 1),
        (6, 8, 2, 16, (1, 1), 2),
        (5, 5, 4, 34, (1, 1), 1),
        (7, 9, 3, 17, (2, 2), 2),
        (11, 6, 2, 24, (2, 1), 1),
        (3, 2, 2, 6, (1, 1), 1),
    ],
    ids=["17 outputs", "whole vectors", "34 outputs", "strided", "strided by rows", "less than a vector"],
)
def test_a_unit_computes_the_same(
    rows: int, columns: int, groups: int, outputs: int, strides: tuple[int, int], batch: int
) -> None:
    model = unit(rows=rows, columns=columns, groups=groups, outputs=outputs, strides=strides, batch=batch)
    tasks = functions(building.fused(prepare(networks.imported(model))))
    blocks = [name for mod in tasks.values() for name in block_names(mod)]
    assert blocks.count(SHUFFLED_OUTPUT) == blocks.count(OUTPUT) == 1
    assert not [name for name in tasks if "reshape" in name]
    assert_computes_the_same(model, seeds=(None, 5, 6))


def test_a_convolution_its_epilogue_and_the_shuffle_are_one_task() -> None:
    fused = building.fused(prepare(networks.imported(unit(rows=7, columns=9, groups=3, outputs=17))))
    blocks = [block_names(mod)[1:] for mod in functions(fused).values()]
    assert sorted(names for names in blocks if SUMS in names) == [
        [SUMS, OUTPUT, "T_add", "T_add1", "compute"],
        [SUMS, SHUFFLED_OUTPUT, "T_add", "compute"],
    ]
    # the two convolutions, the depthwise one between them, and the transposes at either end
    assert operators(fused) == {"call_tir": 5}


def relu(n: Network, t: str) -> str:
    return n.node("Relu", t)


def bounds(n: Network, t: str) -> str:
    return n.node("Clip", t, n.value(np.float32(0)), n.value(np.float32(0.5)))


def scales(n: Network, t: str) -> str:
    """Behind an activation, so that they do not end in the weights."""
    t = n.node("Mul", n.node("Sigmoid", t), n.weight(GROUPS * MEMBERS, 1, 1))
    return n.node("Sub", n.node("Relu", t), n.weight(1, GROUPS * MEMBERS, 1, 1))


@pytest.mark.parametrize("between", [lambda _, t: t, relu, bounds, scales], ids=["bias", "relu", "bounds", "scales"])
def test_a_shuffle_behind_a_convolution_is_the_order_of_its_outputs(between: Callable[[Network, str], str]) -> None:
    model = behind(between)
    prepared = prepare(networks.imported(model))
    before, after = operators(prepared), operators(group_convolutions(prepared, lanes=LANES))
    assert (before["reshape"], after["reshape"]) == (2, 0)
    assert (before["permute_dims"], after["permute_dims"]) == (3, 2)
    assert (before["nn.conv2d"], after["nn.conv2d"], after["call_tir"]) == (1, 0, 1)
    assert_computes_the_same(model)


def pooled(n: Network, t: str) -> str:
    return n.node("MaxPool", t, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


def added(n: Network, t: str) -> str:
    return n.node("Add", t, n.node("Sigmoid", n.conv("x", inputs=12, outputs=GROUPS * MEMBERS, kernel=1)))


def added_to_pixels(n: Network, t: str) -> str:
    return n.node("Add", n.node("Relu", t), n.weight(ROWS, COLUMNS))


def read_twice(n: Network, t: str) -> str:
    """The convolution's output is one operand, and what the other is made of."""
    return n.node("Mul", t, n.node("Sigmoid", t))


@pytest.mark.parametrize(
    ("model", "is_grouped"),
    [
        (behind(relu, groups=MEMBERS), True),
        (behind(pooled), True),
        (behind(added), True),
        (behind(added_to_pixels), True),
        (behind(read_twice), True),
        (behind(relu, kernel=3), False),
        (behind(relu, members=5), False),
    ],
    ids=[
        "other groups",
        "pooling between",
        "residual between",
        "a constant for each pixel between",
        "read twice between",
        "3x3 convolution",
        "convolution with too much padding",
    ],
)
def test_other_shuffles_stay(model: onnx.ModelProto, is_grouped: bool) -> None:
    prepared = prepare(networks.imported(model))
    before, after = operators(prepared), operators(group_convolutions(prepared, lanes=LANES))
    assert after["reshape"] == before["reshape"] == 2
    assert after["permute_dims"] == before["permute_dims"]
    assert after["call_tir"] == is_grouped
    blocks = [name for mod in functions(building.fused(prepared)).values() for name in block_names(mod)]
    assert SHUFFLED_OUTPUT not in blocks
    assert_computes_the_same(model)


def test_a_shuffle_of_what_is_read_elsewhere_too_stays() -> None:
    n = Network(seed=43)
    channels = GROUPS * MEMBERS
    t = n.node("Relu", n.conv("x", inputs=12, outputs=channels, kernel=1, groups=GROUPS))
    mixed = shuffle(n, t, groups=GROUPS, shape=(1, channels, ROWS, COLUMNS))
    model = n.model(n.conv(mixed, inputs=channels, outputs=8), t, shape=(1, 12, ROWS, COLUMNS))
    after = operators(group_convolutions(prepare(networks.imported(model)), lanes=LANES))
    assert after["reshape"] == 2
    assert_computes_the_same(model)


def test_a_shuffle_with_another_reader_inside_stays() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, ROWS, COLUMNS, 12), "float32"))
    weights = relax.const(np.ones((1, 1, 4, GROUPS * MEMBERS), dtype=np.float32))
    with builder.function("main", [x]):
        with builder.dataflow():
            t = builder.emit(relax.op.nn.conv2d(x, weights, groups=GROUPS, data_layout="NHWC", kernel_layout="HWIO"))
            split = builder.emit(relax.op.reshape(t, (1, ROWS, COLUMNS, GROUPS, MEMBERS)))
            swapped = builder.emit(relax.op.permute_dims(split, [0, 1, 2, 4, 3]))
            joined = builder.emit(relax.op.reshape(swapped, (1, ROWS, COLUMNS, GROUPS * MEMBERS)))
            result = builder.emit_output((joined, builder.emit(relax.op.abs(swapped))))
        builder.emit_func_output(result)
    after = group_convolutions(builder.finalize(), lanes=LANES)
    assert operators(after) == {"call_tir": 1, "reshape": 2, "permute_dims": 1, "abs": 1}
    assert OUTPUT in [name for mod in functions(after).values() for name in block_names(mod)]


def test_of_two_shuffles_in_a_row_the_first_goes() -> None:
    n = Network(seed=44)
    shape = (1, GROUPS * MEMBERS, ROWS, COLUMNS)
    t = n.conv("x", inputs=12, outputs=shape[1], kernel=1, groups=GROUPS)
    for _ in range(2):
        t = n.node("Relu", shuffle(n, t, groups=GROUPS, shape=shape))
    model = n.model(t, shape=(1, 12, ROWS, COLUMNS))
    after = operators(group_convolutions(prepare(networks.imported(model)), lanes=LANES))
    assert after["reshape"] == 2
    assert_computes_the_same(model)


def convolution(
    *, groups: int = 2, inputs: int = 5, outputs: int = 16, kernel: int = 1, padding: int = 0, dtype: str = "float32"
) -> IRModule:
    """One NHWC convolution; channels are a group's."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((1, 8, 8, groups * inputs), dtype))
    weights = np.ones((kernel, kernel, inputs, groups * outputs), dtype=dtype)
    with builder.function("main", [x]):
        with builder.dataflow():
            call = relax.op.nn.conv2d(
                x, relax.const(weights), padding=padding, groups=groups, data_layout="NHWC", kernel_layout="HWIO"
            )
            result = builder.emit_output(builder.emit(call))
        builder.emit_func_output(result)
    return builder.finalize()


@pytest.mark.parametrize("outputs", [6, 8, 11, 12, 17, 40])
def test_convolutions_that_nearly_fill_their_vectors_are_grouped(outputs: int) -> None:
    after = group_convolutions(convolution(outputs=outputs), lanes=LANES)
    assert operators(after) == {"call_tir": 1}


@pytest.mark.parametrize(
    "mod",
    [
        convolution(outputs=5),
        convolution(outputs=10),
        convolution(groups=1),
        convolution(kernel=3),
        convolution(padding=1),
        convolution(groups=16, inputs=1, outputs=1),
        convolution(groups=16, inputs=1, outputs=1, kernel=3, padding=1),
        convolution(dtype="float16"),
        convolution(dtype="int8"),
    ],
    ids=[
        "5 outputs in 8 lanes",
        "10 outputs in 16 lanes",
        "one group",
        "3x3",
        "padded",
        "a channel per group",
        "depthwise",
        "half precision",
        "integers",
    ],
)
def test_other_convolutions_stay_as_they_were(mod: IRModule) -> None:
    assert_structural_equal(group_convolutions(mod, lanes=LANES)["main"], mod["main"])


@pytest.mark.parametrize(("groups", "shape"), [(2, (6,)), (3, (51,)), (4, (2, 3, 5, 8)), (1, (4,)), (4, (4,))])
def test_shuffling_is_a_transposition_of_the_last_axis(groups: int, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    expected = values.copy()
    members = shape[-1] // groups
    for channel in range(shape[-1]):
        expected[..., channel] = values[..., channel % groups * members + channel // groups]
    np.testing.assert_array_equal(shuffled(values, groups=groups), expected)
    np.testing.assert_array_equal(
        shuffled(values, groups=groups), np.stack(np.split(values, groups, axis=-1), axis=-1).reshape(shape)
    )
    np.testing.assert_array_equal(shuffled(shuffled(values, groups=groups), groups=members), values)
