"""The graph pipeline end to end: same signature, same numbers, whatever the schedules are."""

from __future__ import annotations

import pytest
from tvm import relax
from tvm.ir import IRModule

from tests.schedules import building, networks

TOLERANCE = 1e-5


def bindings(mod: IRModule) -> list[relax.Expr]:
    return [binding.value for block in mod["main"].body.blocks for binding in block.bindings]


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_computes_what_onnx_runtime_does(name: str) -> None:
    model = networks.NETWORKS[name]()
    values = networks.example_input(model)
    expected = networks.reference(model, values)

    actual = building.run(building.tuned_build(networks.imported(model), seed=7), values)

    assert [output.shape for output in actual] == [output.shape for output in expected]
    for output, wanted in zip(actual, expected, strict=True):
        assert building.relative_error(output, wanted) < TOLERANCE
