"""A chain as one PrimFunc, row by row, its intermediates in rings.

The loops, for two stages (a 1×1 and a 3×3 convolution)::

    for strip in parallel(S):
        ring[strip, r, edges, c] = 0                                        # the columns of the padding, once
        for step in range(steps + warm-up):
            for r in range(rows of stage 0 in a step):
                if the strip needs row and does not have it:
                    for w, co: sums[w, co] = Σ x[row, w, ci] · k[ci, co];  ring[row % R, w + 1, co] = relu(sums + bias)
                if row is padding: ring[row % R, :, :] = 0
            for r in range(rows per step):
                for w, co: sums[w, co] = Σ ring[(row + kh) % R, w + kw, ci] · k[kh, kw, ci, co]; out[row, w, co] = ...

In tiles, all steps are done for each tile, and ``w`` counts its columns; what lies outside of the picture is filled
where it would be computed.

The rings and the order of rows are in the function from the start: no schedule has to make them (TVM's
`rolling_buffer` does, and is easily wrong: docs/decisions/0006-sliding-windows.md). What is left to a schedule is
inside a row: the blocks ``sum_i`` and ``write_i`` of each stage, in a scope of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import gcd, prod
from textwrap import indent

import tvm
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from schedules.windows.columns import Columns, plan_columns, tile_columns
from schedules.windows.rows import Ring, RowPlan, computed_rows
from schedules.windows.stages import Bias, Chain, Clip, Kind, Picture, Residual, Scale, Stage

_FILL = {Kind.MAX_POOL: "T.float32(-3.4028234663852886e38)"}
"""What padding is for the stage that reads it; zero for all others."""
_LANES = 64
"""Channels of a mean that are added up in one statement; LLVM takes as many vectors as it needs."""
_MULTIPLE = 64
"""Rows of padding above a picture are fewer than this many rings."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of stage ``stage`` (-1: the chain's input); ``role`` is ``source``, ``weight``, ``bias``, ``scale``,
    ``residual``, ``output`` or ``ring`` (the ring behind the stage)."""

    name: str
    role: str
    stage: int
    shape: tuple[int, ...]


def parameters_of(chain: Chain, plan: RowPlan) -> list[Parameter]:
    """The parameters of `lower`'s function in their order: the input, each stage's own, the output, the rings.

    Rings are parameters, one part for each strip, so that a network's memory planner sees them.
    """
    rows, columns, channels = chain.source.rows, chain.source.columns, chain.source.channels
    source = (1, channels, rows, columns) if chain.is_planar else _nhwc(chain.source)
    found = [Parameter(name="x", role="source", stage=-1, shape=source)]
    for index, stage in enumerate(chain.stages):
        inputs, channels = chain.read_by(index).channels, stage.output.channels
        kernel = (stage.down.kernel, stage.across.kernel)
        if stage.kind is Kind.CONVOLUTION:
            found.append(Parameter(name=f"k{index}", role="weight", stage=index, shape=(*kernel, inputs, channels)))
        elif stage.kind is Kind.DEPTHWISE:
            found.append(Parameter(name=f"k{index}", role="weight", stage=index, shape=(*kernel, channels)))
        for number, step in enumerate(stage.epilogue):
            name = f"e{index}_{number}"
            match step:
                case Bias():
                    found.append(Parameter(name=name, role="bias", stage=index, shape=(channels,)))
                case Scale():
                    found.append(Parameter(name=name, role="scale", stage=index, shape=(channels,)))
                case Residual(is_chain_input=False):
                    found.append(Parameter(name=name, role="residual", stage=index, shape=_nhwc(stage.output)))
    found.append(Parameter(name="y", role="output", stage=len(chain.stages) - 1, shape=_nhwc(chain.result)))
    for index, ring in enumerate(plan.rings):
        shape = (plan.strips, ring.rows, columns_of(chain, plan)[index].kept, chain.stages[index].output.channels)
        found.append(Parameter(name=f"ring{index}", role="ring", stage=index, shape=shape))
    return found


def reads_padding(stage: Stage, source: Picture) -> bool:
    """Whether the windows of a stage reach beyond the picture that it reads."""
    return any(
        window.before > 0 or window.rows(outputs) > inputs
        for window, outputs, inputs in (
            (stage.down, stage.output.rows, source.rows),
            (stage.across, stage.output.columns, source.columns),
        )
    )


@lru_cache(maxsize=1024)
def columns_of(chain: Chain, plan: RowPlan) -> tuple[Columns, ...]:
    """The columns of every stage."""
    windows, outputs = [stage.across for stage in chain.stages], [stage.output.columns for stage in chain.stages]
    return plan_columns(windows, outputs, tiles=plan.tiles)


def ring_bytes(chain: Chain, plan: RowPlan) -> int:
    """Bytes of the rings of all strips."""
    return sum(ring_sizes(chain, plan))


def ring_sizes(chain: Chain, plan: RowPlan) -> list[int]:
    """Bytes of each ring, all strips of it."""
    return [4 * prod(each.shape) for each in parameters_of(chain, plan) if each.role == "ring"]


def computed_macs(chain: Chain, plan: RowPlan) -> int:
    """Multiplications that the plan really does, seams and recomputation included."""
    total, columns = 0, columns_of(chain, plan)
    for index, stage in enumerate(chain.stages):
        rows = stage.output.rows
        if index < len(plan.rings):
            by_strip = (
                computed_rows(plan, plan.rings[index], height=stage.output.rows, strip=strip)
                for strip in range(plan.strips)
            )
            rows = sum(map(len, by_strip))
        total += rows * plan.tiles * columns[index].computed * stage.macs(chain.read_by(index).channels)
    return total


def lower(chain: Chain, plan: RowPlan) -> PrimFunc:
    """The function of a chain computed by a plan, unscheduled.

    Raises ValueError for a chain whose first stage reads beyond its input (that has no padding, a copy of it would),
    and for strips or tiles of a chain that averages: each would have a mean of its own.
    """
    if chain.averages and (parts := plan.strips * plan.tiles) > 1:
        raise ValueError(f"a mean over {parts} strips or tiles would be {parts} means")
    if reads_padding(chain.stages[0], chain.source):
        raise ValueError(f"the first stage reads beyond its input of {chain.source}; put a copy in front of it")
    return tvm.script.from_source(source_of(chain, plan), extra_vars={"T": T})


def source_of(chain: Chain, plan: RowPlan) -> str:
    """The TVMScript of `lower`'s function."""
    signature = ", ".join(f'{each.name}: T.Buffer({each.shape}, "float32")' for each in parameters_of(chain, plan))
    edges = "".join(_edge_columns(chain, plan, index) for index in range(len(plan.rings))) if plan.tiles == 1 else ""
    stages = "".join(_stage(chain, plan, index) for index in range(len(chain.stages)))
    steps, loops, tile = plan.steps + plan.warm_up, f"t in range({plan.steps + plan.warm_up})", ""
    if plan.tiles > 1:
        loops, tile = f"j, t in T.grid({plan.tiles}, {steps})", f"vj = T.axis.opaque({plan.tiles}, j)\n"
    step = f'for {loops}:\n    with T.sblock("step"):\n' + indent(
        f"{tile}vt = T.axis.opaque({steps}, t)\n{stages}", " " * 8
    )
    strip = f'for s in T.parallel({plan.strips}):\n    with T.sblock("strip"):\n' + indent(
        f"vs = T.axis.spatial({plan.strips}, s)\n{edges}{step}", " " * 8
    )
    body = f'T.func_attr({{"global_symbol": "main", "tirx.noalias": True}})\n{strip}'
    return f"@T.prim_func(s_tir=True)\ndef main({signature}):\n{indent(body, '    ')}"


def _stage(chain: Chain, plan: RowPlan, index: int) -> str:
    """The rows of a stage in one step."""
    if index == len(plan.rings):
        row = f"vs * {plan.strip_rows} + (vt - {plan.warm_up}) * {plan.rows_per_step} + vr"
        condition = f"vt >= {plan.warm_up} and {_unbound(row)} < {chain.output.rows}"
        return _rows(chain, plan, index, count=plan.rows_per_step, row=row, condition=condition)
    ring, height = plan.rings[index], chain.stages[index].output.rows
    start = ring.offset - ring.produced - plan.warm_up * ring.advance
    row = f"vs * {plan.strip_rows * ring.scale} + vt * {ring.advance} + vr + {start}"
    needed = [f"vt >= {plan.warm_up - ring.warm_up}"] if ring.warm_up < plan.warm_up else []
    needed += [
        f"{_unbound(row)} >= vs * {plan.strip_rows * ring.scale} + {ring.first}",
        f"{_unbound(row)} < (vs + 1) * {plan.strip_rows * ring.scale} + {ring.last}",
    ]
    bottom = _bottom(chain, index)
    if plan.strips * plan.strip_rows > chain.output.rows:
        needed.append(f"{_unbound(row)} < {bottom}")
    inside = [f"{_unbound(row)} >= 0", f"{_unbound(row)} < {height}"]
    computed = _rows(chain, plan, index, count=ring.produced, row=row, condition=" and ".join(needed + inside))
    if ring.first >= 0 and bottom <= height:
        return computed
    outside = f"({_unbound(row)} < 0 or {_unbound(row)} >= {height})"
    return computed + _edge_rows(chain, plan, index, row=row, condition=" and ".join([*needed, outside]))


def _rows(chain: Chain, plan: RowPlan, index: int, *, count: int, row: str, condition: str) -> str:
    stage = chain.stages[index]
    width, channels = columns_of(chain, plan)[index].computed, stage.output.channels
    body = f"vr = T.axis.opaque({count}, r)\nT.where({condition})\n"
    if stage.kind is not Kind.COPY:
        body += f"sums = T.sblock_alloc_buffer(({width}, {channels}))\n" + _sums(chain, plan, index, row=row)
    body += (
        _mean(chain, plan, index, row=row)
        if chain.averages and index == len(plan.rings)
        else (
            f"for w, c in T.grid({width}, {channels}):\n"
            f'    with T.sblock("write{index}"):\n'
            '        vw, vc = T.axis.remap("SS", [w, c])\n'
            f"        {_target(chain, plan, index, row=row)} = {_written(chain, plan, index, row=row)}\n"
        )
    )
    return f'for r in range({count}):\n    with T.sblock("rows{index}"):\n{indent(body, " " * 8)}'


def _mean(chain: Chain, plan: RowPlan, index: int, *, row: str) -> str:
    """Add a row's part to the mean over the picture."""
    width, channels, value = chain.output.columns, chain.output.channels, _value(chain, plan, index, row=row)
    share, lanes = 1 / (chain.output.rows * width), gcd(channels, _LANES)
    return (
        f"row_sum = T.sblock_alloc_buffer(({channels},))\n"
        f"for w, c in T.grid({width}, {channels}):\n"
        f'    with T.sblock("write{index}"):\n'
        '        vw, vc = T.axis.remap("RS", [w, c])\n'
        "        with T.init():\n"
        "            row_sum[vc] = T.float32(0)\n"
        f"        row_sum[vc] = row_sum[vc] + {value}\n"
        # No schedule may touch a block that reads what it writes.
        f"for c0 in range({channels // lanes}):\n"
        f"    for c1 in T.vectorized({lanes}):\n"
        '        with T.sblock("mean"):\n'
        f"            vc = T.axis.spatial({channels}, c0 * {lanes} + c1)\n"
        f"            y[0, 0, 0, vc] = T.Select({row} == 0, T.float32(0), y[0, 0, 0, vc])"
        f" + row_sum[vc] * T.float32({share!r})\n"
    )


def _sums(chain: Chain, plan: RowPlan, index: int, *, row: str) -> str:
    stage, inputs = chain.stages[index], chain.read_by(index).channels
    extents = [columns_of(chain, plan)[index].computed, stage.output.channels, stage.down.kernel, stage.across.kernel]
    names, kinds = ["w", "c", "kh", "kw"], "SSRR"
    if stage.kind is Kind.CONVOLUTION:
        extents, names, kinds = [*extents, inputs], [*names, "ci"], kinds + "R"
    channel = "vci" if stage.kind is Kind.CONVOLUTION else "vc"
    read = _read(chain, plan, index, row=row, channel=channel)
    match stage.kind:
        case Kind.CONVOLUTION:
            start, update = "T.float32(0)", f"sums[vw, vc] + {read} * k{index}[vkh, vkw, vci, vc]"
        case Kind.DEPTHWISE:
            start, update = "T.float32(0)", f"sums[vw, vc] + {read} * k{index}[vkh, vkw, vc]"
        case Kind.MAX_POOL:
            start, update = _FILL[Kind.MAX_POOL], f"T.max(sums[vw, vc], {read})"
        case _:
            start, update = "T.float32(0)", f"sums[vw, vc] + {read}"
    axes = ", ".join(f"v{name}" for name in names)
    return (
        f"for {', '.join(names)} in T.grid({', '.join(map(str, extents))}):\n"
        f'    with T.sblock("sum{index}"):\n'
        f'        {axes} = T.axis.remap("{kinds}", [{", ".join(names)}])\n'
        "        with T.init():\n"
        f"            sums[vw, vc] = {start}\n"
        f"        sums[vw, vc] = {update}\n"
    )


def _read(chain: Chain, plan: RowPlan, index: int, *, row: str, channel: str) -> str:
    """The element of its input that a stage reads for ``vw, vkh, vkw``."""
    stage = chain.stages[index]
    down, across = stage.down, stage.across
    source_row = f"({row}) * {down.stride} + vkh * {down.dilation} - {down.before}"
    if index == 0:
        column = f"{_column(chain, plan, index)} * {across.stride} + vkw * {across.dilation} - {across.before}"
        if columns_of(chain, plan)[index].leaves:  # what is computed there is not kept
            column = f"T.max(T.min({column}, {chain.source.columns - 1}), 0)"
        return _source(chain, source_row, column, channel)
    column = f"vw * {across.stride} + vkw * {across.dilation}"
    return f"ring{index - 1}[vs, {_place(plan.rings[index - 1], source_row)}, {column}, {channel}]"


def _column(chain: Chain, plan: RowPlan, index: int) -> str:
    """The column of the picture behind stage ``index`` that ``vw`` stands for."""
    if plan.tiles == 1:
        return "vw"
    columns, width = columns_of(chain, plan)[index], tile_columns(chain.output.columns, plan.tiles)
    start = f"vj * {width}"
    if width * plan.tiles > chain.output.columns:
        start = f"T.min({start}, {chain.output.columns - width})"
    return f"({start} * {columns.scale} + {columns.first} + vw)"


def _source(chain: Chain, row: str, column: str, channel: str) -> str:
    indices = [channel, row, column] if chain.is_planar else [row, column, channel]
    return f"x[{', '.join(['0', *indices])}]"


def _place(ring: Ring, row: str) -> str:
    """A row's place in a ring. Rows of the padding are negative: a multiple of the ring's size is added."""
    return f"({row} + {ring.rows * _MULTIPLE}) % {ring.rows}"


def _target(chain: Chain, plan: RowPlan, index: int, *, row: str) -> str:
    if index == len(plan.rings):
        return f"y[0, {row}, {_column(chain, plan, index)}, vc]"
    return f"ring{index}[vs, {_place(plan.rings[index], row)}, vw + {columns_of(chain, plan)[index].before}, vc]"


def _written(chain: Chain, plan: RowPlan, index: int, *, row: str) -> str:
    """What a stage writes: a tile that leaves the picture has the next stage's padding there."""
    value, column = _value(chain, plan, index, row=row), _column(chain, plan, index)
    if not columns_of(chain, plan)[index].leaves:
        return value
    inside = f"{column} >= 0 and {column} < {chain.stages[index].output.columns}"
    return f"T.if_then_else({inside}, {value}, {_fill(chain.stages[index + 1])})"


def _value(chain: Chain, plan: RowPlan, index: int, *, row: str) -> str:
    stage, column = chain.stages[index], _column(chain, plan, index)
    value = _source(chain, row, column, "vc") if stage.kind is Kind.COPY else "sums[vw, vc]"
    if stage.kind is Kind.AVERAGE_POOL:
        value = f"{value} * T.float32({1 / (stage.down.kernel * stage.across.kernel)!r})"
    for number, step in enumerate(stage.epilogue):
        name = f"e{index}_{number}"
        match step:
            case Bias():
                value = f"{value} + {name}[vc]"
            case Scale():
                value = f"({value}) * {name}[vc]"
            case Clip(low=low, high=high):
                value = value if low is None else f"T.max({value}, T.float32({low!r}))"
                value = value if high is None else f"T.min({value}, T.float32({high!r}))"
            case Residual(is_chain_input=True):
                value = f"{value} + {_source(chain, row, column, 'vc')}"
            case Residual():
                value = f"{value} + {name}[0, {row}, {column}, vc]"
    return value


def _edge_columns(chain: Chain, plan: RowPlan, index: int) -> str:
    """Fill the columns of a ring that no row of the picture writes."""
    stage, after = chain.stages[index], chain.stages[index + 1]
    columns, text = columns_of(chain, plan)[index], ""
    end = columns.before + columns.computed
    for name, start, count in (("left", 0, columns.before), ("right", end, columns.kept - end)):
        if count > 0:
            text += (
                f"for r, w, c in T.grid({plan.rings[index].rows}, {count}, {stage.output.channels}):\n"
                f'    with T.sblock("{name}{index}"):\n'
                '        vr, vw, vc = T.axis.remap("SSS", [r, w, c])\n'
                f"        ring{index}[vs, vr, vw + {start}, vc] = {_fill(after)}\n"
            )
    return text


def _bottom(chain: Chain, index: int) -> int:
    """One more than the last row behind stage ``index`` that the chain's output needs, padding included."""
    bottom = chain.output.rows
    for stage in reversed(chain.stages[index + 1 :]):
        bottom = stage.down.first(bottom - 1) + stage.down.reach
    return bottom


def _edge_rows(chain: Chain, plan: RowPlan, index: int, *, row: str, condition: str) -> str:
    stage, after = chain.stages[index], chain.stages[index + 1]
    ring, columns = plan.rings[index], columns_of(chain, plan)[index]
    return (
        f"for r in range({ring.produced}):\n"
        f'    with T.sblock("edge{index}"):\n'
        f"        vr = T.axis.opaque({ring.produced}, r)\n"
        f"        T.where({condition})\n"
        f"        for w, c in T.grid({columns.computed}, {stage.output.channels}):\n"
        f'            with T.sblock("fill{index}"):\n'
        '                vw, vc = T.axis.remap("SS", [w, c])\n'
        f"                ring{index}[vs, {_place(ring, row)}, vw + {columns.before}, vc] = {_fill(after)}\n"
    )


def _fill(stage: Stage) -> str:
    return _FILL.get(stage.kind, "T.float32(0)")


def _unbound(row: str) -> str:
    """A row by the variable of its own loop: a block's predicate is not inside of the block."""
    return "(" + row.replace("vr", "r") + ")"


def _nhwc(picture: Picture) -> tuple[int, ...]:
    return (1, picture.rows, picture.columns, picture.channels)
