"""Parts of a network around a change: what fusion makes of the change there is what it makes of it in the network."""

from __future__ import annotations

from collections import Counter

import pytest
from tvm import relax
from tvm.ir import IRModule

from schedules.graph.neighbourhood import rewrite_around
from schedules.graph.pipeline import prepare
from schedules.graph.rewrite import op_name, rewrite_main
from schedules.graph.winograd import winograd_convolutions, winograd_rule
from tests.schedules import building, networks
from tests.schedules.networks import Network
from tuner.tasks import call_counts, task_functions, task_module, workload_key


def calls(prepared: IRModule) -> Counter[str]:
    """How often each function is called in the fused form."""
    fused = building.fused(prepared)
    called, counts = call_counts(fused), Counter[str]()
    for name, function in task_functions(fused).items():
        counts[workload_key(task_module(function))] += called[name]
    return counts


def change(before: Counter[str], after: Counter[str]) -> dict[str, int]:
    return {key: after[key] - before[key] for key in {*before, *after} if after[key] != before[key]}


def entangled() -> IRModule:
    """Residuals, a diamond of elementwise operators, a concatenation and two outputs around 3×3 convolutions."""
    n = Network(seed=2)
    t = n.node("Relu", n.conv("x", inputs=8, outputs=16))
    left = n.conv(t, inputs=16, outputs=16)
    gate = n.node("Mul", n.node("Sigmoid", left), left)
    t = n.node("Relu", n.node("Add", n.conv(gate, inputs=16, outputs=16), n.conv(t, inputs=16, outputs=16, kernel=1)))
    joined = n.node("Concat", t, gate, axis=1)
    deep = n.node("Relu", n.conv(joined, inputs=32, outputs=16))
    return networks.imported(n.model(n.conv(deep, inputs=16, outputs=16), n.node("GlobalAveragePool", joined)))


def inception() -> IRModule:
    return networks.light_model("inception_v1")


@pytest.mark.parametrize("network", [entangled, inception])
def test_a_part_is_changed_as_the_network_is(network: object) -> None:
    prepared = prepare(network())  # type: ignore[operator]
    usual = calls(prepared)
    convolutions = winograd_convolutions(prepared)
    assert convolutions
    for variable, shape in list(convolutions.items())[:6]:
        rule = winograd_rule({variable: shape})
        in_network = change(usual, calls(rewrite_main(prepared, rule)))
        around = [calls(rewrite_around(prepared, [variable], *rules)) for rules in ((), (rule,))]
        assert change(*around) == in_network


def test_a_part_ends_at_the_next_convolutions() -> None:
    n = Network(seed=3)
    t = "x"
    for _ in range(6):
        t = n.node("Relu", n.conv(t, inputs=8, outputs=8))
    prepared = prepare(networks.imported(n.model(t)))
    convolutions = [
        binding.var for binding in prepared["main"].body.blocks[0].bindings if op_name(binding.value) == "nn.conv2d"
    ]
    part = rewrite_around(prepared, [convolutions[3]])
    relax.analysis.well_formed(part)  # raises
    operators = Counter(op_name(binding.value) for binding in part["main"].body.blocks[0].bindings)
    assert operators["nn.conv2d"] == 3
    assert len(part["main"].params) == 1
