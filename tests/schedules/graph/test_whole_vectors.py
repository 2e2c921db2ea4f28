"""Convolutions padded to whole vectors: the numbers of whole networks, and where the padding is dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from tvm.ir import IRModule

from schedules.graph.pipeline import prepare
from schedules.graph.rewrite import op_name, static_shape
from schedules.graph.whole_vectors import fill_vectors
from tests.schedules import building, networks
from tests.schedules.networks import Network

LANES = building.VECTOR_BITS // 32
SHAPE = (1, 64, 7, 9)
"""Of the input of every network here, unless it says otherwise."""
CHANNELS, WHOLE = 62, 64


def prepared(model: onnx.ModelProto) -> IRModule:
    return prepare(networks.imported(model))


def filled(model: onnx.ModelProto) -> IRModule:
    return fill_vectors(prepared(model), lanes=LANES)


def steps(mod: IRModule) -> list[tuple[str, int]]:
    """The operators in their order, without the reordering at either end, and how many channels each computes."""
    calls = [binding.value for binding in mod["main"].body.blocks[0].bindings]
    named = [(op_name(call), static_shape(call)) for call in calls]
    return [(name, shape[-1]) for name, shape in named if name not in ("", "permute_dims", "reshape") and shape]


def assert_computes_the_same(model: onnx.ModelProto) -> None:
    """As the operators say, without schedules, and with random ones."""
    data = networks.example_input(model)
    expected = networks.reference(model, data)
    for seed in (None, 5):
        actual = building.run(building.tuned_build(networks.imported(model), seed=seed), data)
        for output, wanted in zip(actual, expected, strict=True):
            assert output.shape == wanted.shape
            assert building.relative_error(output, wanted) < 1e-5


def convolved(n: Network, *, inputs: int = 64, outputs: int = CHANNELS, **attributes: Any) -> str:
    return n.conv("x", inputs=inputs, outputs=outputs, **{"kernel": 1, **attributes})


@pytest.mark.parametrize(
    ("channels", "whole", "kernel", "stride", "batch"), [(39, 40, 1, 1, 1), (62, 64, 3, 2, 1), (79, 80, 1, 2, 2)]
)
def test_a_network_computes_the_same(channels: int, whole: int, kernel: int, stride: int, batch: int) -> None:
    """The second convolution reads the first one's channels without the padding, and has its own."""
    n = Network(seed=51)
    t = n.node("Relu", convolved(n, outputs=channels, kernel=kernel, strides=[stride, stride]))
    t = n.conv(t, inputs=channels, outputs=channels, strides=[2, 2])
    t = n.node("Softmax", n.node("Flatten", n.node("GlobalAveragePool", t)), axis=-1)
    model = n.model(t, shape=(batch, 64, 17, 19))
    assert steps(filled(model)) == [
        *(("nn.conv2d", whole), ("add", whole), ("nn.relu", whole), ("strided_slice", channels)),
        *(("nn.conv2d", whole), ("add", whole), ("mean", whole), ("strided_slice", channels)),
        ("nn.softmax", channels),
    ]
    assert_computes_the_same(model)


def test_the_padding_is_dropped_behind_activation_and_mean() -> None:
    n = Network(seed=52)
    t = n.node("Relu", convolved(n))
    model = n.model(n.node("Flatten", n.node("GlobalAveragePool", t)), shape=SHAPE)
    assert steps(filled(model)) == [
        *(("nn.conv2d", WHOLE), ("add", WHOLE), ("nn.relu", WHOLE), ("mean", WHOLE)),
        ("strided_slice", CHANNELS),
    ]
    assert_computes_the_same(model)


def test_constants_by_channel_and_single_ones_are_padded_or_kept() -> None:
    n = Network(seed=53)
    t = n.node("Clip", convolved(n), n.value(np.float32(0)), n.value(np.float32(0.5)))
    t = n.node("Add", n.node("Mul", n.node("Sigmoid", t), n.weight(CHANNELS, 1, 1)), n.weight(1, CHANNELS, 1, 1))
    t = n.node("ReduceMean", n.node("Relu", t), axes=[2, 3], keepdims=0)
    t = n.node("Mul", n.node("Relu", t), n.weight(CHANNELS))
    model = n.model(t, shape=SHAPE)
    assert steps(filled(model)) == [
        *(("nn.conv2d", WHOLE), ("add", WHOLE), ("maximum", WHOLE), ("minimum", WHOLE)),
        *(("sigmoid", WHOLE), ("multiply", WHOLE), ("add", WHOLE), ("nn.relu", WHOLE)),
        *(("mean", WHOLE), ("nn.relu", WHOLE), ("multiply", WHOLE), ("strided_slice", CHANNELS)),
    ]
    assert_computes_the_same(model)


@pytest.mark.parametrize(
    ("operator", "attributes", "name"),
    [
        ("Softmax", {"axis": 1}, "nn.softmax"),
        ("MaxPool", {"kernel_shape": [3, 3]}, "nn.max_pool2d"),
        ("ReduceMean", {"axes": [1]}, "mean"),
        ("ReduceMean", {"axes": [1, 2, 3]}, "mean"),
        ("Exp", {}, "exp"),
    ],
)
def test_the_padding_is_dropped_before_other_steps(operator: str, attributes: dict[str, Any], name: str) -> None:
    n = Network(seed=54)
    model = n.model(n.node(operator, n.node("Relu", convolved(n)), **attributes), shape=SHAPE)
    found = steps(filled(model))
    assert found[:4] == [("nn.conv2d", WHOLE), ("add", WHOLE), ("nn.relu", WHOLE), ("strided_slice", CHANNELS)]
    assert [step for step, _ in found[4:]] == [name]
    assert_computes_the_same(model)


def test_a_constant_for_each_pixel_is_not_padded() -> None:
    n = Network(seed=55)
    model = n.model(n.node("Add", n.node("Relu", convolved(n)), n.weight(*SHAPE[2:])), shape=SHAPE)
    assert steps(filled(model))[-2:] == [("strided_slice", CHANNELS), ("add", CHANNELS)]
    assert_computes_the_same(model)


def test_what_is_read_twice_is_without_padding_once() -> None:
    n = Network(seed=56)
    t = n.node("Relu", convolved(n))
    t = n.node("Add", n.node("MaxPool", t, kernel_shape=[3, 3], pads=[1, 1, 1, 1]), n.node("Sigmoid", t))
    model = n.model(t, shape=SHAPE)
    assert steps(filled(model)) == [
        *(("nn.conv2d", WHOLE), ("add", WHOLE), ("nn.relu", WHOLE), ("strided_slice", CHANNELS)),
        *(("nn.max_pool2d", CHANNELS), ("sigmoid", CHANNELS), ("add", CHANNELS)),
    ]
    assert_computes_the_same(model)


def test_results_have_no_padding() -> None:
    n = Network(seed=57)
    t = convolved(n)
    model = n.model(n.node("Relu", t), t, n.node("GlobalAveragePool", t), shape=SHAPE)
    assert [width for name, width in steps(filled(model)) if name == "strided_slice"] == [CHANNELS]
    assert_computes_the_same(model)


@pytest.mark.parametrize(
    ("shape", "changed"),
    [
        ((1, 63, 7, 9), {"inputs": 63}),
        ((1, 64, 3, 5), {}),
        (SHAPE, {"outputs": 41}),
        (SHAPE, {"outputs": WHOLE}),
        ((1, CHANNELS, 7, 9), {"inputs": CHANNELS, "groups": CHANNELS, "kernel": 9}),
        ((1, 128, 7, 9), {"inputs": 128, "groups": 2}),
    ],
    ids=["too few products", "too few pixels", "too much padding", "whole vectors", "depthwise", "groups"],
)
def test_other_convolutions_stay_as_they_were(shape: tuple[int, ...], changed: dict[str, Any]) -> None:
    n = Network(seed=58)
    model = n.model(n.node("Relu", convolved(n, **changed)), shape=shape)
    assert steps(filled(model)) == steps(prepared(model))


def test_a_convolution_that_winograd_can_compute_keeps_its_shape() -> None:
    n = Network(seed=59)
    before = prepared(n.model(convolved(n, kernel=3), shape=SHAPE))
    assert steps(fill_vectors(before, lanes=LANES)) == steps(before)
