"""Each template on the smallest function that shows it: golden TVMScript, the numbers, and where it does not apply."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from tvm import te, topi
from tvm.s_tir import Schedule
from tvm.tirx import PrimFunc

from schedules.decisions import DecisionSpace
from schedules.grouped import GroupedShape, grouped_convolution, padded_weights
from schedules.space import design_spaces, initialized_postprocs, replay
from schedules.templates import template_for
from schedules.templates.elementwise import is_elementwise
from schedules.templates.rows import normalizes_rows, schedule_rows
from schedules.winograd import ConvolutionShape, input_transform, output_transform
from tests.schedules import building, functions

Array = npt.NDArray[Any]
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


def grouped_shape(
    *, groups: int = 3, outputs: int = 12, strides: tuple[int, int] = (1, 1), shuffled: bool = False
) -> GroupedShape:
    return GroupedShape(
        groups=groups,
        inputs=5,
        outputs=outputs,
        stride_rows=strides[0],
        stride_columns=strides[1],
        lanes=8,
        shuffled=shuffled,
    )


def grouped(
    shape: GroupedShape | None = None, *, batch: int = 1, rows: int = 4, columns: int = 6, has_epilogue: bool = True
) -> PrimFunc:
    """A grouped convolution with bias and ReLU, or on its own."""
    shape = shape or grouped_shape()
    data = te.placeholder((batch, rows, columns, shape.groups * shape.inputs), name="X")
    vectors = shape.padded_outputs // shape.lanes
    weights = te.placeholder((shape.groups, shape.inputs, vectors, shape.lanes), name="W")
    output = grouped_convolution(data, weights, shape=shape)
    if not has_epilogue:
        return te.create_prim_func([data, weights, output])
    bias = te.placeholder((1, 1, 1, shape.groups * shape.outputs), name="B")
    return te.create_prim_func([data, weights, bias, topi.nn.relu(topi.add(output, bias))])


def grouped_shuffled() -> PrimFunc:
    return grouped(grouped_shape(shuffled=True))


def grouped_numpy(x: Array, weights: Array, shape: GroupedShape) -> Array:
    """Group by group; ``weights`` (1, 1, inputs, groups · outputs)."""
    pixels = x[:, :: shape.stride_rows, :: shape.stride_columns]
    inputs = np.split(pixels, shape.groups, axis=-1)
    kernels = np.split(weights[0, 0], shape.groups, axis=-1)
    outputs = [data @ kernel for data, kernel in zip(inputs, kernels, strict=True)]
    stacked = np.stack(outputs, axis=-1 if shape.shuffled else -2)
    return stacked.reshape(*pixels.shape[:-1], -1)


def scaled(*, rows: int = 6, columns: int = 80, channels: int = 48) -> PrimFunc:
    """Scale, shift and ReLU by channel."""
    x = te.placeholder((1, rows, columns, channels), name="X")
    scale, shift = (te.placeholder((1, 1, 1, channels), name=name) for name in ("S", "B"))
    return te.create_prim_func([x, scale, shift, topi.nn.relu(topi.add(topi.multiply(x, scale), shift))])


def concatenated() -> PrimFunc:
    pieces = [te.placeholder((1, 3, 5, channels), name=name) for name, channels in (("X", 24), ("Y", 16), ("Z", 5))]
    return te.create_prim_func([*pieces, topi.concatenate(pieces, axis=3)])


def transposed(shape: tuple[int, ...], axes: tuple[int, ...]) -> PrimFunc:
    x = te.placeholder(shape, name="X")
    return te.create_prim_func([x, topi.transpose(x, axes)])


def layer_norm_numpy(x: Any, gamma: Any, beta: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * gamma + beta


def spaces(function: PrimFunc) -> list[DecisionSpace]:
    return design_spaces(building.as_module(function), building.TARGET, cores=2, vector_bits=256, seed=1)


def check_every_choice(function: PrimFunc, expected: Callable[..., Any], *, rtol: float, atol: float) -> None:
    """Run a function with each choice of its template's one decision."""
    mod = building.as_module(function)
    (space,) = spaces(function)
    for index in range(int(space.size)):
        trace = space.trace_json(space.decisions(np.array([index], dtype=np.int32)))
        done = replay(mod, trace, initialized_postprocs(mod, building.TARGET)).mod
        *inputs, out = functions.arrays(function)
        building.run_function(done, *inputs, out)
        np.testing.assert_allclose(out, expected(*inputs), rtol=rtol, atol=atol)


@pytest.mark.parametrize(
    "make", [winograd_input, winograd_output, fast_softmax, layer_norm, grouped, grouped_shuffled, scaled]
)
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
    check_every_choice(function, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
@pytest.mark.parametrize(
    ("changed", "picture", "choices"),
    [
        ({}, {}, 3 * 4 * 2),
        ({"outputs": 17, "strides": (2, 1)}, {"batch": 2, "rows": 3, "columns": 5, "has_epilogue": False}, 2 * 2 * 2),
        ({"groups": 2, "outputs": 16, "strides": (2, 2)}, {"rows": 9, "columns": 4}, 1 * 2 * 2),
        ({"groups": 4, "outputs": 6}, {"rows": 2, "columns": 3}, 2 * 2 * 1),
    ],
    ids=["12 outputs", "17 outputs", "16 outputs", "6 outputs"],
)
def test_every_choice_convolves_groups(
    changed: dict[str, Any], picture: dict[str, Any], choices: int, shuffled: bool
) -> None:
    """What the padding of the weights is multiplied into is dropped; 17 outputs have 24 lanes, 6 have 8."""
    shape = grouped_shape(shuffled=shuffled, **changed)
    function = grouped(shape, **picture)
    mod = building.as_module(function)
    (space,) = spaces(function)
    assert space.variant == "template"
    x, _, *bias, out = functions.arrays(function)
    rng = np.random.default_rng(2)
    weights = rng.standard_normal((1, 1, shape.inputs, shape.groups * shape.outputs)).astype(np.float32)
    expected = grouped_numpy(x, weights, shape)
    if bias:
        expected = np.maximum(expected + bias[0], 0)
    assert out.shape == expected.shape
    genomes = list(itertools.product(*(range(count) for count in space.cardinalities)))
    assert len(genomes) == choices
    for genome in genomes:
        trace = space.trace_json(space.decisions(np.array(genome, dtype=np.int32)))
        done = replay(mod, trace, initialized_postprocs(mod, building.TARGET)).mod
        out[...] = np.nan
        building.run_function(done, x, padded_weights(weights, shape), *bias, out)
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (scaled(), lambda x, scale, shift: np.maximum(x * scale + shift, 0)),
        (scaled(rows=1, columns=3, channels=35), lambda x, scale, shift: np.maximum(x * scale + shift, 0)),
        (concatenated(), lambda *pieces: np.concatenate(pieces, axis=3)),
        (functions.bias_relu(), functions.bias_relu_numpy),
        (transposed((1, 9, 5, 32), (0, 2, 1, 3)), lambda x: x.transpose(0, 2, 1, 3)),
    ],
    ids=["scale and shift", "few rows", "concatenation", "bias", "transpose of rows"],
)
def test_every_choice_computes_elementwise_functions(function: PrimFunc, expected: Callable[..., Any]) -> None:
    assert is_elementwise(building.as_module(function))
    check_every_choice(function, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        functions.matmul_relu(rows=16, columns=24, depth=24),
        functions.row_sums(),
        functions.max_pool(),
        functions.global_pool(),
        functions.padded_conv(),
        functions.depthwise_conv(),
        functions.bias_relu(columns=12),
        functions.scalar_threshold(),
        transposed((1, 16, 9, 32), (0, 2, 3, 1)),
    ],
    ids=[
        "matmul",
        "row sums",
        "pooling",
        "global pooling",
        "convolution",
        "depthwise",
        "few channels",
        "one axis",
        "transpose",
    ],
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
