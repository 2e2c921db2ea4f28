"""Knobs say what the finished schedule really does."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from schedules.knobs import knobs_of, knobs_of_decisions
from schedules.space import design_spaces, plain
from tests.schedules import building, functions

AXES = {
    "T_matmul_NN": ("v_i0", "v_i1", "v_k"),
    "conv2d_nhwc": ("v_nn", "v_yy", "v_xx", "v_ff", "v_ry", "v_rx", "v_rc"),
}


def trace_json(schedule: Any) -> str:
    return json.dumps(plain(schedule.trace.simplified(True).as_json(True)))


@pytest.mark.parametrize("seed", range(1, 7))
@pytest.mark.parametrize("function", ["matmul_relu", "padded_conv"])
def test_match_the_loops_of_the_finished_schedule(function: str, seed: int) -> None:
    context = building.task_context(getattr(functions, function)(), seed=seed)
    for sketch in context.generate_design_space():
        knobs = knobs_of(trace_json(sketch), axes=AXES)
        sketch.enter_postproc()
        assert all(processor.apply(sketch) for processor in context.space_generator.postprocs)
        script = sketch.mod.script()
        before_update = script[: script.index("_update")].splitlines()
        innermost = re.search(r"T.vectorized\((\d+)\)", before_update[-2])
        assert knobs["vector_width"] == (int(innermost.group(1)) if innermost else None)
        steps = {int(step) for step in re.findall(r'auto_unroll_max_step": (\d+)', script)}
        assert knobs["unroll"] == (steps.pop() if steps else None)
        parallel = [int(extent) for extent in re.findall(r"T.parallel\((\d+)", script)]
        assert knobs["parallel"] in (parallel or [1])


def test_are_named_after_the_axes() -> None:
    schedule = building.sketches(functions.padded_conv(size=8, channels=16))[0]
    tiles = knobs_of(trace_json(schedule), axes=AXES)["tiles"]
    assert isinstance(tiles, dict)
    assert list(tiles) == ["n", "h", "w", "co", "kh", "kw", "ci"]
    extents = {"n": 1, "h": 8, "w": 8, "co": 16, "kh": 3, "kw": 3, "ci": 16}
    for axis, factors in tiles.items():
        product = 1
        for factor in factors:
            product *= factor
        assert product == extents[axis]
        assert len(factors) == (2 if axis.startswith("k") or axis == "ci" else 4)


def test_tell_the_three_places_of_the_epilogue() -> None:
    found = [
        knobs_of(trace_json(schedule), axes=AXES)["epilogue"] for schedule in building.sketches(functions.matmul_relu())
    ]
    assert sorted(found, key=str) == [1, 2, None]


def test_tell_where_padding_is_computed() -> None:
    places = {
        str(knobs_of(trace_json(schedule), axes=AXES)["compute_at"]["pad_temp"])  # type: ignore[index]
        for seed in range(1, 9)
        for schedule in building.sketches(functions.padded_conv(), seed=seed)
    }
    assert "root" in places
    assert any(place.startswith("loop ") for place in places)


def test_are_none_where_nothing_was_decided() -> None:
    (schedule,) = building.sketches(functions.bias_relu())
    assert knobs_of(trace_json(schedule), axes={}) == {
        "tiles": {},
        "unroll": None,
        "vector_width": 32,
        "parallel": None,
        "epilogue": None,
        "compute_at": {},
    }


def test_are_json_ready_and_the_same_from_decisions() -> None:
    mod = building.as_module(functions.matmul_relu())
    spaces = design_spaces(mod, building.TARGET, cores=2, vector_bits=256, seed=0)
    for space in spaces:
        decisions = tuple(tuple(int(value) for value in gene.table[0]) for gene in space.genes)
        knobs = knobs_of_decisions(space, decisions)
        assert space.anchor is not None
        axes = {space.anchor.block: space.anchor.axes}
        assert json.loads(json.dumps(knobs)) == knobs
        assert knobs == knobs_of(space.trace_json(decisions), axes=axes)
        assert list(knobs["tiles"]) == ["m", "n", "k"]  # type: ignore[call-overload]
