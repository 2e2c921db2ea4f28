"""What functions allocate for themselves as tensors of the network: the same outputs, and they share its storages."""

from __future__ import annotations

import pytest
from tvm.ir import IRModule

from schedules.graph.pipeline import prepack, prepare
from schedules.memory.lifetimes import Activations, activations, with_allocations
from schedules.memory.lift import lift_workspaces
from schedules.memory.workspace import workspace_bytes
from tests.schedules import building, networks
from tests.schedules.networks import Network


def alive(mod: IRModule) -> Activations:
    found = activations(with_allocations(mod))
    assert found is not None
    return found


def test_a_padded_input_is_a_tensor_of_the_network() -> None:
    n = Network(seed=4)
    t = n.node("Relu", n.conv("x", inputs=8, outputs=16, kernel=1))
    model = n.model(n.conv(t, inputs=16, outputs=8), shape=(1, 8, 14, 14))
    plain = building.fused(prepare(networks.imported(model)))
    lifted = lift_workspaces(plain)
    padded = 4 * 16 * 16 * 16
    assert padded <= workspace_bytes(plain, threads=1) - workspace_bytes(lifted, threads=1)
    sizes = [each.size_bytes for each in alive(lifted).lifetimes.values()]
    assert padded in sizes
    assert sum(sizes) > sum(each.size_bytes for each in alive(plain).lifetimes.values())


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", ["classifier", "residual", "shuffled", "normalized"])
def test_scheduled_networks_compute_the_same(name: str, seed: int) -> None:
    model = getattr(networks, name)()
    values = networks.example_input(model)
    scheduled = prepack(
        building.scheduled(building.fused(prepare(networks.imported(model))), seed=seed), building.TARGET
    )
    lifted = lift_workspaces(scheduled)
    for output, expected in zip(
        building.run(building.built(lifted), values), networks.reference(model, values), strict=True
    ):
        assert building.relative_error(output, expected) < 1e-5
    needed = workspace_bytes(lifted, threads=2)
    assert needed <= workspace_bytes(scheduled, threads=2)
