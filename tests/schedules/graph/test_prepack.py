"""Weights moved into the order of their schedules by NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import te, tirx
from tvm.tirx import PrimFunc

from schedules.graph.prepack import move_elements
from tests.schedules import building

Index = Callable[..., list[Any]]


def copying(shape: tuple[int, ...], out_shape: tuple[int, ...], index: Index) -> PrimFunc:
    """``out[index(v)] = in[v]``, as `RewriteLayout` writes it."""
    source = te.placeholder(shape, name="W")
    plain = te.create_prim_func([source, te.compute(shape, lambda *v: source(*v), name="copied")])
    from tvm.s_tir import Schedule

    schedule = Schedule(plain)
    schedule.transform_layout(schedule.get_sblock("copied"), ("write", 0), index, assume_injective_transform=True)
    function = schedule.mod["main"]
    assert tuple(int(extent) for extent in function.params[1].shape) == out_shape
    return function


CASES: dict[str, tuple[tuple[int, ...], tuple[int, ...], Index]] = {
    "tiled": (
        (3, 3, 8, 16),
        (4, 3, 2, 2, 3, 4, 2),
        lambda a, b, c, d: [d // 4, b, c // 4, d % 4 // 2, a, c % 4, d % 2],
    ),
    "transposed": ((5, 7), (7, 5), lambda a, b: [b, a]),
    "kept": ((4, 6), (4, 6), lambda a, b: [a, b]),
    "unit axes": ((1, 1, 6, 8), (2, 6, 1, 1, 4), lambda a, b, c, d: [d // 4, c, a, b, d % 4]),
}


@pytest.mark.parametrize("name", CASES)
def test_moves_elements_as_the_function_does(name: str) -> None:
    shape, out_shape, index = CASES[name]
    function = copying(shape, out_shape, index)
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)

    moved = move_elements(function, values)

    expected = np.full(out_shape, np.nan, dtype=np.float32)
    building.run_function(building.as_module(function), values.copy(), expected)
    assert moved is not None
    np.testing.assert_array_equal(moved, expected)


def test_leaves_functions_that_compute_alone() -> None:
    source = te.placeholder((4, 4), name="W")
    doubled = te.create_prim_func([source, te.compute((4, 4), lambda i, j: source[i, j] * 2.0)])
    assert move_elements(doubled, np.ones((4, 4), dtype=np.float32)) is None


def test_leaves_copies_that_drop_or_repeat_elements_alone() -> None:
    source = te.placeholder((4, 4), name="W")
    shifted = te.create_prim_func(
        [source, te.compute((4, 4), lambda i, j: tirx.if_then_else(j > 0, source[i, j], 0.0))]
    )
    skewed = te.create_prim_func([source, te.compute((4, 4), lambda i, j: source[i, (i + j) % 4])])
    for function in (shifted, skewed):
        assert move_elements(function, np.ones((4, 4), dtype=np.float32)) is None
