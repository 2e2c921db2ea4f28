"""Which tensors of a network are alive when, and that a network computes the same in shared storages."""

from __future__ import annotations

import numpy as np

from schedules.graph.pipeline import prepare
from schedules.memory.lifetimes import activations, with_allocations
from schedules.memory.storages import share
from tests.schedules import building, networks
from tests.schedules.networks import Network


def test_a_tensor_lives_from_its_function_to_its_last_reader() -> None:
    n = Network(seed=1)
    first = n.node("Relu", n.conv("x", inputs=8, outputs=16))
    second = n.node("Relu", n.conv(first, inputs=16, outputs=16))
    model = n.model(n.node("Add", n.conv(second, inputs=16, outputs=16), first), shape=(1, 8, 14, 14))
    fused = building.fused(prepare(networks.imported(model)))
    found = activations(with_allocations(fused))
    assert found is not None
    tensor = 4 * 16 * 14 * 14
    assert found.input_bytes == 4 * 8 * 14 * 14
    assert found.output_bytes == tensor
    # the transposed input, half as large; with the first tensor; two; three while the sum is computed; the last one
    assert [alive / tensor for _, alive in found.timeline] == [0.5, 1.5, 2.0, 3.0, 1.0]
    assert found.peak_bytes == 3 * tensor
    names = [name for name, _ in found.timeline]
    assert all(name in {variable.name_hint for variable in fused.functions} for name in names)


def test_views_keep_what_they_look_at_alive() -> None:
    n = Network(seed=2)
    t = n.conv("x", inputs=8, outputs=8)
    flat = n.node("Reshape", t, n.value(np.array([1, -1], dtype=np.int64)))
    other = n.node("Sigmoid", "x")
    model = n.model(n.node("Softmax", flat, axis=1), n.node("Relu", other), shape=(1, 8, 6, 6))
    found = activations(with_allocations(building.fused(prepare(networks.imported(model)))))
    assert found is not None
    assert all(lifetime.last >= lifetime.first for lifetime in found.lifetimes.values())


def test_networks_compute_the_same_in_shared_storages() -> None:
    for make in (networks.classifier, networks.shuffled):
        model = make()
        values = networks.example_input(model)
        fused = building.fused(prepare(networks.imported(model)))
        found = activations(with_allocations(fused))
        assert found is not None
        lifetimes = list(found.lifetimes.values())
        assert found.peak_bytes <= share(lifetimes).total_bytes < sum(each.aligned_bytes for each in lifetimes)
        for output, expected in zip(
            building.run(building.built(fused), values), networks.reference(model, values), strict=True
        ):
            assert building.relative_error(output, expected) < 1e-5


def test_unknown_shapes_are_left_to_tvm() -> None:
    n = Network(seed=3)
    model = n.model(n.node("Relu", "x"), shape=(1, 8, 6, 6))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    mod = building.fused(prepare(networks.imported(model)))
    assert activations(with_allocations(mod)) is None
    building.built(mod)
