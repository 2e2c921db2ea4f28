"""Winograd's filtering: the numbers, the graph that uses it, and the templates of its transforms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm
from tvm.ir import IRModule
from tvm.tirx import PrimFunc

from schedules.decisions import DecisionSpace
from schedules.graph.pipeline import finish, prepack, prepare
from schedules.graph.rewrite import op_name, rewrite_main
from schedules.graph.winograd import winograd_convolutions, winograd_rule
from schedules.space import design_spaces, initialized_postprocs, replay
from schedules.templates import template_for
from schedules.winograd import (
    INPUT,
    INPUT_MATRIX,
    OUTPUT_MATRIX,
    transform_flops,
    transformed_weights,
)
from tests.schedules import building, networks
from tests.schedules.networks import Network


def network(*, rows: int, columns: int, pads: tuple[int, int, int, int] = (1, 1, 1, 1), batch: int = 1) -> Any:
    """Two convolutions with bias and ReLU, a residual addition behind the second."""
    n = Network(seed=21)
    t = n.node("Relu", n.conv("x", inputs=16, outputs=16, pads=[1, 1, 1, 1]))
    u = n.conv(t, inputs=16, outputs=16, pads=list(pads))
    if pads == (1, 1, 1, 1):
        u = n.node("Add", u, t)
    return n.model(n.node("Relu", u), shape=(batch, 16, rows, columns))


def task(function: PrimFunc) -> IRModule:
    return building.as_module(function.without_attr("global_symbol"))


def tasks(mod: IRModule) -> dict[str, IRModule]:
    """The functions of a fused module, without the transposes at either end."""
    return {
        var.name_hint: task(body)
        for var, body in mod.functions.items()
        if isinstance(body, PrimFunc) and not var.name_hint.startswith("transpose")
    }


def by_winograd(prepared: IRModule) -> IRModule:
    return rewrite_main(prepared, winograd_rule(winograd_convolutions(prepared)))


def count_convolutions(mod: IRModule) -> int:
    return sum(op_name(binding.value) == "nn.conv2d" for binding in mod["main"].body.blocks[0].bindings)


def spaces(mod: IRModule) -> list[DecisionSpace]:
    return design_spaces(mod, building.TARGET, cores=2, vector_bits=256, seed=1)


def test_one_dimensional_filtering_is_a_correlation() -> None:
    rng = np.random.default_rng(0)
    data, weights = rng.standard_normal(6), rng.standard_normal((3, 3, 1, 1))
    tile = np.outer(data, data)
    expected = [[(tile[i : i + 3, j : j + 3] * weights[..., 0, 0]).sum() for j in range(4)] for i in range(4)]
    spread = transformed_weights(weights).reshape(6, 6)
    into, out = np.array(INPUT_MATRIX), np.array(OUTPUT_MATRIX)
    np.testing.assert_allclose(out @ (into @ tile @ into.T * spread) @ out.T, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("rows", "columns", "pads", "batch"),
    [(8, 8, (1, 1, 1, 1), 1), (7, 9, (1, 1, 1, 1), 2), (10, 13, (0, 0, 0, 0), 1), (6, 11, (2, 0, 1, 2), 1)],
)
def test_a_network_computes_the_same(rows: int, columns: int, pads: tuple[int, int, int, int], batch: int) -> None:
    model = network(rows=rows, columns=columns, pads=pads, batch=batch)
    values = networks.example_input(model)
    prepared = prepare(networks.imported(model))
    fused = building.fused(by_winograd(prepared))
    assert sum(INPUT in name for name in tasks(fused)) > 0
    scheduled = fused.clone()
    for var, body in fused.functions.items():
        if isinstance(body, PrimFunc):
            mod = task(body)
            space = spaces(mod)[0]
            genome = space.random(1, np.random.default_rng(3))[0]
            trace = space.trace_json(space.decisions(genome))
            done = replay(mod, trace, initialized_postprocs(mod, building.TARGET)).mod["main"]
            scheduled.update_func(var, done.without_attr("global_symbol").with_attr("tirx.is_scheduled", True))
    for form in (fused, scheduled):
        mod = finish(prepack(form, building.TARGET), building.TARGET)
        (output,) = building.run(tvm.compile(mod, target=building.TARGET, relax_pipeline=None), values)
        (expected,) = networks.reference(model, values)
        assert building.relative_error(output, expected) < 1e-5


def test_only_the_named_convolutions_change_and_epilogues_are_fused() -> None:
    prepared = prepare(networks.imported(network(rows=8, columns=8)))
    first, second = winograd_convolutions(prepared).items()
    assert str(first[1]) == "8×8×16→16"
    assert count_convolutions(prepared) == 2
    assert count_convolutions(rewrite_main(prepared, winograd_rule(dict([second])))) == 1
    assert count_convolutions(by_winograd(prepared)) == 0
    names = set(tasks(building.fused(by_winograd(prepared))))
    # one input transform and one product for both convolutions; the outputs' epilogues differ
    assert sum(name.startswith("winograd_input") for name in names) == 1
    assert sum(name.startswith("winograd_product") for name in names) == 1
    assert len([name for name in names if name.startswith("fused_winograd_output")]) == 2
    assert len(names) == 4


@pytest.mark.parametrize(
    "changed", [{"strides": [2, 2]}, {"dilations": [2, 2], "pads": [2] * 4}, {"groups": 2}, {"kernel": 1}]
)
def test_other_convolutions_have_one_way(changed: dict[str, Any]) -> None:
    n = Network(seed=22)
    prepared = prepare(networks.imported(n.model(n.conv("x", inputs=32, outputs=32, **changed), shape=(1, 32, 8, 8))))
    assert winograd_convolutions(prepared) == {}


def test_transforms_have_a_template_and_their_own_count_of_operations() -> None:
    prepared = prepare(networks.imported(network(rows=8, columns=8)))
    fused = building.fused(by_winograd(prepared))
    for name, mod in tasks(fused).items():
        is_transform = "product" not in name
        assert (template_for(mod) is not None) is is_transform
        assert (transform_flops(mod) is not None) is is_transform
        if is_transform:
            (space,) = spaces(mod)
            assert [gene.block for gene in space.genes] != [""]
            assert space.size == 5  # 16 channels in two factors
