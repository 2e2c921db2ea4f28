"""Chains in networks: which operators belong together, and what ends a chain."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schedules.graph.pipeline import prepare
from schedules.windows.find import FoundChain, find_chains
from schedules.windows.lower import lower, parameters_of
from schedules.windows.stages import Bias, Clip, Kind, Picture, Residual
from tests.schedules import building, networks
from tests.schedules.networks import Network
from tests.schedules.windows.chains import planned


def found(model: Any) -> list[FoundChain]:
    return find_chains(prepare(networks.imported(model)))


def kinds(chain: FoundChain) -> list[Kind]:
    return [each.stage.kind for each in chain.stages]


def inverted_residual(n: Network, source: str, *, channels: int, stride: int = 1) -> str:
    wide = n.node("Relu", n.conv(source, inputs=channels, outputs=3 * channels, kernel=1))
    strides, groups = [stride, stride], 3 * channels
    depthwise = n.conv(wide, inputs=groups, outputs=groups, groups=groups, strides=strides, pads=[1, 1, 1, 1])
    narrow = n.conv(n.node("Relu", depthwise), inputs=groups, outputs=channels, kernel=1)
    return narrow if stride > 1 else n.node("Add", narrow, source)


def test_an_inverted_residual_is_a_chain() -> None:
    n = Network(seed=1)
    (chain,) = found(n.model(inverted_residual(n, n.node("Relu", "x"), channels=8), shape=(1, 8, 10, 12)))
    assert kinds(chain) == [Kind.CONVOLUTION, Kind.DEPTHWISE, Kind.CONVOLUTION]
    assert chain.chain.source == chain.chain.output == Picture(rows=10, columns=12, channels=8)
    assert chain.stages[0].stage.epilogue == (Bias(), Clip(low=0.0, high=None))
    assert chain.stages[-1].stage.epilogue[-1] == Residual(is_chain_input=True)


def test_parameters_are_in_the_order_of_the_function() -> None:
    n = Network(seed=2)
    (chain,) = found(n.model(inverted_residual(n, n.node("Relu", "x"), channels=4), shape=(1, 4, 6, 6)))
    own = [each for each in parameters_of(chain.chain, planned(chain.chain)) if each.stage >= 0]
    shapes = [each.shape for each in own if each.role not in ("output", "ring")]
    assert [np.shape(argument) for argument in chain.arguments] == shapes


def test_chains_cross_blocks_until_a_tensor_is_read_twice() -> None:
    n = Network(seed=3)
    first = inverted_residual(n, n.node("Relu", "x"), channels=4, stride=2)
    second = inverted_residual(n, first, channels=4)
    chains = found(n.model(second, shape=(1, 4, 12, 12)))
    # What the first block hands on is read by the second block and by its addition.
    assert [len(chain.stages) for chain in chains] == [3, 3]
    one = inverted_residual(n := Network(seed=4), n.node("Relu", "x"), channels=4, stride=2)
    (chain,) = found(n.model(inverted_residual(n, one, channels=4, stride=2), shape=(1, 4, 12, 12)))
    assert len(chain.stages) == 6


def test_pooling_belongs_to_a_chain_and_other_tensors_may_be_added() -> None:
    n = Network(seed=5)
    other = n.node("Sigmoid", "x")
    t = n.node("Relu", n.node("Add", n.conv("x", inputs=6, outputs=6, pads=[1, 1, 1, 1]), other))
    t = n.node("MaxPool", t, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    (chain,) = found(n.model(t, shape=(1, 6, 9, 9)))
    assert kinds(chain) == [Kind.CONVOLUTION, Kind.MAX_POOL]
    assert Residual(is_chain_input=False) in chain.stages[0].stage.epilogue


@pytest.mark.parametrize("case", ["batch", "groups", "read twice", "returned"])
def test_what_has_no_rows_of_its_own_ends_a_chain(case: str) -> None:
    n = Network(seed=6)
    t = n.conv("x", inputs=8, outputs=8, kernel=1, groups=2 if case == "groups" else 1)
    u = n.conv(t, inputs=8, outputs=8, pads=[1, 1, 1, 1])
    outputs = [u]
    if case == "read twice":
        outputs = [n.node("Add", n.node("Sigmoid", t), u)]
    if case == "returned":
        outputs = [u, t]
    model = n.model(*outputs, shape=(2 if case == "batch" else 1, 8, 7, 7))
    assert found(model) == []


def test_a_chain_computes_what_the_network_does() -> None:
    n = Network(seed=7)
    t = n.node("Relu", n.conv("x", inputs=3, outputs=8, pads=[1, 1, 1, 1], strides=[2, 2]))
    t = n.node("MaxPool", n.node("Clip", t, n.value(np.float32(0.1)), n.value(np.float32(0.9))), kernel_shape=[2, 2])
    model = n.model(t, shape=(1, 3, 13, 11))
    (chain,) = found(model)
    assert [each.kind for each in chain.chain.stages] == [Kind.COPY, Kind.CONVOLUTION, Kind.MAX_POOL]
    data = networks.example_input(model)
    (expected,) = (each.transpose(0, 2, 3, 1) for each in networks.reference(model, data))
    output = np.full_like(expected, np.nan, order="C")
    constants = [np.array(argument) for argument in chain.arguments]
    plan = planned(chain.chain, rows_per_step=2, strips=2)
    rings = [np.empty(each.shape, "float32") for each in parameters_of(chain.chain, plan) if each.role == "ring"]
    function = building.as_module(lower(chain.chain, plan))
    assert chain.chain.is_planar  # it reads the network's input as it comes
    building.run_function(function, data, *constants, output, *rings)
    assert building.relative_error(output, expected) < 1e-6
