"""Each rule on the smallest function that shows it: golden TVMScript, NumPy's numbers, and where it does not apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm.ir import IRModule, assert_structural_equal
from tvm.s_tir import Schedule

from schedules.rules.compute_location import choose_compute_location
from schedules.rules.inlining import inline_constant_scalars, inline_elementwise
from schedules.rules.parallel import annotate_parallel_vectorize_unroll
from schedules.rules.reduction import split_long_reductions
from schedules.rules.tiling import tile_with_reuse
from tests.schedules import building, functions

RULES: dict[str, Callable[[], Any]] = {
    "inline_constant_scalars": inline_constant_scalars,
    "inline_elementwise": inline_elementwise,
    "split_long_reductions": lambda: split_long_reductions(max_jobs_per_core=16, max_innermost_factor=32),
    "tile_with_reuse": lambda: tile_with_reuse(max_innermost_factor=64),
    "annotate_parallel_vectorize_unroll": lambda: annotate_parallel_vectorize_unroll(
        max_jobs_per_core=16, max_vectorize_extent=32
    ),
    "choose_compute_location": choose_compute_location,
}
SHOWN = {
    "inline_constant_scalars": "scalar_threshold",
    "inline_elementwise": "bias_relu",
    "split_long_reductions": "row_sums",
    "tile_with_reuse": "matmul_relu",
    "annotate_parallel_vectorize_unroll": "matmul_relu",
    "choose_compute_location": "padded_conv",
}
NOT_APPLICABLE = {
    "inline_constant_scalars": "bias_relu",
    "inline_elementwise": "row_sums",
    "split_long_reductions": "max_pool",
    "tile_with_reuse": "bias_relu",
    "choose_compute_location": "row_sums",
}


def script(schedules: list[Schedule]) -> str:
    parts = [f"# design space {index}\n{schedule.mod.script()}" for index, schedule in enumerate(schedules)]
    return "\n\n".join(parts)


def sketches(rule: str, function: str) -> list[Schedule]:
    return building.sketches(getattr(functions, function)(), rules=[RULES[rule]()], seed=3)


@pytest.mark.parametrize("rule", RULES)
def test_rewrites_the_loop_nest_as_recorded(rule: str, golden: Callable[[str, str], None]) -> None:
    golden(rule, script(sketches(rule, SHOWN[rule])))


@pytest.mark.parametrize("rule", RULES)
def test_keeps_the_numbers(rule: str) -> None:
    function = SHOWN[rule]
    made = sketches(rule, function)
    assert made
    for schedule in made:
        check_numbers(schedule.mod, function)


@pytest.mark.parametrize("rule", NOT_APPLICABLE)
def test_returns_what_it_does_not_apply_to_unchanged(rule: str) -> None:
    function = getattr(functions, NOT_APPLICABLE[rule])()
    (unchanged,) = building.sketches(function, rules=[RULES[rule]()])
    assert_structural_equal(unchanged.mod["main"], function.with_attr("global_symbol", "main"))
    assert not list(unchanged.trace.simplified(True).insts)


def test_parallel_annotations_alone_change_no_loop() -> None:
    (schedule,) = sketches("annotate_parallel_vectorize_unroll", "bias_relu")
    assert "T.parallel" not in schedule.mod.script()
    assert "meta_schedule.parallel" in schedule.mod.script()


def test_finished_schedules_are_as_recorded(golden: Callable[[str, str], None]) -> None:
    """All rules and the postprocessors together, weights reordered last."""
    modules = building.finished(functions.matmul_relu(), seed=5)
    text = "\n\n".join(f"# design space {index}\n{module.script()}" for index, module in enumerate(modules))
    assert "layout_rewrite_preproc" in text
    assert "T.parallel" in text
    assert "T.vectorized" in text
    golden("postprocs", text)


@pytest.mark.parametrize(
    "function",
    ["matmul_relu", "bias_relu", "row_sums", "max_pool", "padded_conv", "depthwise_conv", "softmax", "global_pool"],
)
def test_every_design_space_computes_what_numpy_does(function: str) -> None:
    modules = building.finished(getattr(functions, function)(), seed=2)
    assert modules
    for module in modules:
        check_numbers(module, function)


@pytest.mark.parametrize(
    ("function", "axes"), [("max_pool", 6), ("padded_conv", 7), ("depthwise_conv", 6), ("matmul_relu", 3)]
)
def test_windowed_and_reusing_reductions_are_tiled(function: str, axes: int) -> None:
    for schedule in building.sketches(getattr(functions, function)()):
        kinds = [instruction.kind.name for instruction in schedule.trace.insts]
        assert kinds.count("SamplePerfectTile") == axes


def test_long_reductions_offer_partial_sums() -> None:
    kinds = [
        {instruction.kind.name for instruction in schedule.trace.insts}
        for schedule in building.sketches(functions.row_sums())
    ]
    assert len(kinds) == 3
    assert sum("RFactor" in names for names in kinds) == 2


def check_numbers(module: IRModule, function: str) -> None:
    *inputs, out = functions.arrays(getattr(functions, function)())
    building.run_function(module, *inputs, out)
    expected = getattr(functions, f"{function}_numpy")(*inputs)
    np.testing.assert_allclose(out, expected.reshape(out.shape), rtol=1e-4, atol=1e-4)
