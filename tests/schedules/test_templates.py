"""Each template on the smallest function that shows it: golden TVMScript, the numbers, and where it does not apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tvm import te, topi
from tvm.s_tir import Schedule
from tvm.tirx import PrimFunc

from schedules.decisions import DecisionSpace
from schedules.space import design_spaces, initialized_postprocs, replay
from schedules.templates import template_for
from schedules.templates.rows import normalizes_rows, schedule_rows
from schedules.winograd import ConvolutionShape, input_transform, output_transform
from tests.schedules import building, functions

SHAPE = ConvolutionShape(batch=1, rows=6, columns=8, inputs=32, outputs=32)


def winograd_input() -> PrimFunc:
    data = te.placeholder((1, 6, 8, 32), name="X")
    return te.create_prim_func([data, input_transform(data, shape=SHAPE, top=1, left=1)])


def winograd_output() -> PrimFunc:
    products = te.placeholder((36, 4, 32), name="M")
    bias = te.placeholder((1, 1, 1, 32), name="B")
    output = topi.nn.relu(topi.add(output_transform(products, shape=SHAPE), bias))
    return te.create_prim_func([products, bias, output])


def fast_softmax(*, rows: int = 6, columns: int = 96) -> PrimFunc:
    x = te.placeholder((2, rows, columns), name="X")
    return te.create_prim_func([x, topi.nn.fast_softmax(x, axis=-1)])


def layer_norm(*, rows: int = 6, columns: int = 96) -> PrimFunc:
    x = te.placeholder((1, rows, columns), name="X")
    gamma, beta = te.placeholder((columns,), name="gamma"), te.placeholder((columns,), name="beta")
    return te.create_prim_func([x, gamma, beta, topi.nn.layer_norm(x, gamma, beta, [2], 1e-5)])


def layer_norm_numpy(x: Any, gamma: Any, beta: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * gamma + beta


def spaces(function: PrimFunc) -> list[DecisionSpace]:
    return design_spaces(building.as_module(function), building.TARGET, cores=2, vector_bits=256, seed=1)


@pytest.mark.parametrize("make", [winograd_input, winograd_output, fast_softmax, layer_norm])
def test_the_loop_nest_is_as_recorded(make: Callable[[], PrimFunc], golden: Callable[[str, str], None]) -> None:
    mod = building.as_module(make())
    template = template_for(mod)
    assert template is not None
    sch = Schedule(mod, seed=7)
    template(sch)
    golden(f"template_{make.__name__}", sch.mod.script())


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (fast_softmax(), lambda x: functions.softmax_numpy(x.reshape(12, 96)).reshape(x.shape)),
        (fast_softmax(rows=1, columns=7), lambda x: functions.softmax_numpy(x.reshape(2, 7)).reshape(x.shape)),
        (functions.softmax(), functions.softmax_numpy),
        (layer_norm(), layer_norm_numpy),
        (layer_norm(rows=3, columns=50), layer_norm_numpy),
    ],
    ids=["softmax", "softmax of seven", "exact softmax", "layer norm", "layer norm of fifty"],
)
def test_every_choice_normalizes_rows(function: PrimFunc, expected: Callable[..., Any]) -> None:
    mod = building.as_module(function)
    (space,) = spaces(function)
    for index in range(int(space.size)):
        trace = space.trace_json(space.decisions(np.array([index], dtype=np.int32)))
        done = replay(mod, trace, initialized_postprocs(mod, building.TARGET)).mod
        *inputs, out = functions.arrays(function)
        building.run_function(done, *inputs, out)
        np.testing.assert_allclose(out, expected(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "function",
    [
        functions.matmul_relu(rows=16, columns=24, depth=24),
        functions.row_sums(),
        functions.bias_relu(),
        functions.max_pool(),
        functions.global_pool(),
        functions.padded_conv(),
        functions.depthwise_conv(),
    ],
    ids=["matmul", "row sums", "elementwise", "pooling", "global pooling", "convolution", "depthwise"],
)
def test_other_functions_are_left_to_the_rules(function: PrimFunc) -> None:
    assert not normalizes_rows(building.as_module(function))
    assert template_for(building.as_module(function)) is None


def test_what_a_template_cannot_schedule_goes_to_the_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(sch: Schedule) -> None:
        schedule_rows(sch)
        sch.compute_at(sch.get_sblock("C"), sch.get_loops(sch.get_sblock("C"))[0])

    monkeypatch.setattr("schedules.space.template_for", lambda _: broken)
    assert spaces(functions.matmul_relu())[0].variant == "tile-0"
