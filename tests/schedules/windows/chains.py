"""Random chains, and what they compute according to NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from schedules.windows.lower import parameters_of
from schedules.windows.rows import Mode, RowPlan, Window, plan_rows
from schedules.windows.stages import Bias, Chain, Clip, Kind, Picture, Residual, Scale, Stage, Step

Array = npt.NDArray[Any]
RELU6 = Clip(low=0.0, high=6.0)


def stage(
    kind: Kind,
    source: Picture,
    *,
    kernel: int = 1,
    stride: int = 1,
    dilation: int = 1,
    padding: tuple[int, int] = (0, 0),
    channels: int | None = None,
    epilogue: tuple[Step, ...] = (),
) -> Stage:
    """A stage with the same window along rows and columns; ``padding`` before and after."""
    window = Window(kernel=kernel, stride=stride, dilation=dilation, before=padding[0])
    rows, columns = ((extent + sum(padding) - window.reach) // stride + 1 for extent in (source.rows, source.columns))
    output = Picture(rows=rows, columns=columns, channels=channels or source.channels)
    return Stage(kind=kind, down=window, across=window, output=output, epilogue=epilogue)


def inverted_residual(rows: int, columns: int, *, channels: int = 8, stride: int = 1) -> Chain:
    """1×1 → depthwise 3×3 → 1×1, with the input added where the shape allows."""
    source = Picture(rows=rows, columns=columns, channels=channels)
    wide = stage(Kind.CONVOLUTION, source, channels=3 * channels, epilogue=(Bias(), RELU6))
    depthwise = stage(Kind.DEPTHWISE, wide.output, kernel=3, stride=stride, padding=(1, 1), epilogue=(Bias(), RELU6))
    last = (Bias(), Residual(is_chain_input=True)) if stride == 1 else (Bias(),)
    narrow = stage(Kind.CONVOLUTION, depthwise.output, channels=channels, epilogue=last)
    return Chain(source=source, stages=(wide, depthwise, narrow))


def planned(
    chain: Chain, *, rows_per_step: int = 1, strips: int = 1, tiles: int = 1, modes: list[Mode] | None = None
) -> RowPlan:
    return plan_rows(
        [each.down for each in chain.stages],
        output_rows=chain.output.rows,
        rows_per_step=rows_per_step,
        strips=strips,
        tiles=tiles,
        modes=modes,
    )


@st.composite
def chains(draw: st.DrawFn) -> Chain:
    """Two to four stages of any kind; the first one reads the chain's input as it is, or a copy of it with padding."""
    extents = st.integers(5, 17)
    source = Picture(rows=draw(extents), columns=draw(extents), channels=draw(st.sampled_from([1, 3, 8])))
    stages: list[Stage] = []
    if draw(st.booleans()):
        stages.append(stage(Kind.COPY, source))
    for _ in range(draw(st.integers(2, 4)) - len(stages)):
        before = stages[-1].output if stages else source
        made = draw(_stages(before, is_first=not stages))
        stages.append(made)
    return Chain(source=source, stages=tuple(stages), averages=draw(st.sampled_from([False, False, False, True])))


@st.composite
def _stages(draw: st.DrawFn, source: Picture, *, is_first: bool) -> Stage:
    kind = draw(st.sampled_from([Kind.CONVOLUTION, Kind.DEPTHWISE, Kind.MAX_POOL, Kind.AVERAGE_POOL]))
    kernel, dilation = draw(st.sampled_from([1, 2, 3, 5])), draw(st.sampled_from([1, 1, 2]))
    reach = (kernel - 1) * dilation + 1
    # The first stage reads the input itself, which has no padding; average pooling counts none either.
    # The largest of nothing but padding is the lowest number for TVM, and minus infinity here: no dilated window of it.
    only_padding = kind is Kind.MAX_POOL and dilation > 1
    widest = 0 if is_first or kind is Kind.AVERAGE_POOL or only_padding else reach // 2
    padding = (draw(st.integers(0, widest)), draw(st.integers(0, widest)))
    if min(source.rows, source.columns) + sum(padding) < reach:
        kernel, dilation, padding = 1, 1, (0, 0)
    epilogue = draw(st.lists(st.sampled_from([Bias(), Scale(), RELU6, Clip(low=0.0, high=None)]), max_size=2))
    made = stage(
        kind,
        source,
        kernel=kernel,
        stride=draw(st.sampled_from([1, 1, 2])),
        dilation=dilation,
        padding=padding,
        channels=draw(st.sampled_from([2, 5, 8])) if kind is Kind.CONVOLUTION else None,
        epilogue=tuple(epilogue),
    )
    if draw(st.booleans()) and made.output == source and is_first:
        epilogue.append(Residual(is_chain_input=True))
    elif draw(st.integers(0, 4)) == 0:
        epilogue.append(Residual(is_chain_input=False))
    return Stage(kind=made.kind, down=made.down, across=made.across, output=made.output, epilogue=tuple(epilogue))


def arrays(chain: Chain, plan: RowPlan, *, seed: int = 0) -> dict[str, Array]:
    """Random values of all parameters by name; output and rings full of NaN, so that what is not written shows."""
    rng = np.random.default_rng(seed)
    values = {each.name: rng.standard_normal(each.shape).astype(np.float32) for each in parameters_of(chain, plan)}
    for each in parameters_of(chain, plan):
        if each.role in ("output", "ring"):
            values[each.name][:] = np.nan
    return values


def expected(chain: Chain, values: dict[str, Array]) -> Array:
    """The chain in float64, operator by operator."""
    current = source = values["x"][0].astype(np.float64)
    for index, each in enumerate(chain.stages):
        current = _operator(each, current, values.get(f"k{index}"))
        for number, step in enumerate(each.epilogue):
            constants = values.get(f"e{index}_{number}")
            match step:
                case Bias():
                    current = current + constants
                case Scale():
                    current = current * constants
                case Clip(low=low, high=high):
                    current = np.clip(current, low, high)
                case Residual(is_chain_input=True):
                    current = current + source
                case Residual():
                    assert constants is not None
                    current = current + constants[0]
    return current.mean(axis=(0, 1), keepdims=True) if chain.averages else current


def _operator(each: Stage, source: Array, weights: Array | None) -> Array:
    if each.kind is Kind.COPY:
        return source
    rows, columns, down, across = each.output.rows, each.output.columns, each.down, each.across
    fill = -np.inf if each.kind is Kind.MAX_POOL else 0.0
    after = [
        max(0, window.rows(count) - window.before - extent)
        for window, count, extent in zip((down, across), (rows, columns), source.shape, strict=False)
    ]
    padding = ((down.before, after[0]), (across.before, after[1]), (0, 0))
    padded = np.pad(source, padding, constant_values=fill)
    windows = np.stack(
        [
            padded[
                i * down.dilation : i * down.dilation + (rows - 1) * down.stride + 1 : down.stride,
                j * across.dilation : j * across.dilation + (columns - 1) * across.stride + 1 : across.stride,
            ]
            for i in range(down.kernel)
            for j in range(across.kernel)
        ]
    )
    if each.kind is Kind.MAX_POOL:
        return windows.max(axis=0)
    if each.kind is Kind.AVERAGE_POOL:
        return windows.mean(axis=0)
    assert weights is not None
    flat = weights.astype(np.float64).reshape(len(windows), *weights.shape[2:])
    return (
        np.einsum("khwi,kio->hwo", windows, flat)
        if each.kind is Kind.CONVOLUTION
        else (windows * flat[:, None, None]).sum(axis=0)
    )
