"""Knobs: a schedule's decisions as a person reads them, ready for JSON. No TVM is needed to read a trace."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schedules.decisions import DecisionSpace, GeneKind

_READABLE = {"nn": "n", "yy": "h", "xx": "w", "ff": "co", "rc": "ci", "ry": "kh", "rx": "kw"}
"""TOPI's names of a convolution's iterators."""
_READABLE_MATMUL = {"i0": "m", "i1": "n", "i2": "n", "b": "batch"}
_SPATIAL_PARTS = 4
"""Spatial axes are tiled into this many loops, reduction axes into fewer (`schedules.rules.tiling.STRUCTURE`)."""
_LOCATIONS = {-1: "root", -2: "inlined"}


def knobs_of(trace_json: str, *, axes: Mapping[str, Sequence[str]]) -> dict[str, object]:
    """The knobs of a trace in TVM's JSON (`Record.trace`, or ``Trace.as_json``).

    ``axes`` names the iterators of each block that is tiled, in order; a block without an entry gets ``axis0`` and
    so on. The result::

        {"tiles": {"n": [1, 1, 1, 1], "h": [2, 1, 7, 1], ..., "ci": [4, 4]},   # outermost factor first
         "unroll": 16,          # largest body that is unrolled, None where nothing is
         "vector_width": 16,    # elements, None for scalar code
         "parallel": 28,        # iterations shared among the threads, None without a tile to tell from
         "epilogue": 1,         # the tile level after which bias, activation and such are computed, None where apart
         "compute_at": {"pad_temp": "loop 3"}}   # or "root", or "inlined"

    Tiles of a block other than the first tiled one are named ``block.axis``.
    """
    instructions, decisions = json.loads(trace_json)[:2]
    return _Reader(axes=axes, decided=dict(decisions)).read(instructions)


def knobs_of_decisions(space: DecisionSpace, decisions: Sequence[Sequence[int]]) -> dict[str, object]:
    """The knobs of one point of a design space, from its decisions in the order of the space's genes."""
    axes = {space.anchor.block: space.anchor.axes} if space.anchor is not None else {}
    axes |= {space.genes[stage.pixels].block: ("pixels", "channels") for stage in space.stages}
    decided = {
        gene.instruction: list(row) if gene.kind is GeneKind.TILE else row[0]
        for gene, row in zip(space.genes, decisions, strict=True)
    }
    return _Reader(axes=axes, decided=decided).read(space.instructions)


def axis_name(block: str, iterator: str) -> str:
    """A block's iterator as knobs name it: ``v_yy`` → ``h``."""
    name = iterator.removeprefix("v_")
    readable = _READABLE_MATMUL if "matmul" in block else _READABLE
    return readable.get(name, name)


@dataclass(kw_only=True)
class _Reader:
    """Follows a trace's random variables (``b1``, ``l14``, ``v10``) from where they are made to where they are used."""

    axes: Mapping[str, Sequence[str]]
    decided: Mapping[int, Any]
    blocks: dict[str, str] = field(default_factory=dict)
    loops: dict[str, tuple[str, int]] = field(default_factory=dict)  # loop → (block, axis)
    levels: dict[str, int] = field(default_factory=dict)  # loop → tile level
    values: dict[str, int] = field(default_factory=dict)
    tiles: dict[str, list[int]] = field(default_factory=dict)
    tiled: str | None = None
    spatial: list[list[int]] = field(default_factory=list)  # tiles of the first tiled block's spatial axes
    bounds: dict[str, int] = field(default_factory=dict)
    compute_at: dict[str, str] = field(default_factory=dict)
    extents: dict[str, int] = field(default_factory=dict)  # loop → its sampled factor
    vectorized: int | None = None  # a template's own vector loop
    epilogue: int | None = None
    deepest_shared: int | None = None  # how many outer loops the tiled block and the blocks computed under it share

    def read(self, instructions: Sequence[Any]) -> dict[str, object]:
        for index, (kind, inputs, attributes, outputs) in enumerate(instructions):
            match kind:
                case "GetSBlock":
                    self.blocks[outputs[0]] = attributes[0]
                case "RFactor":
                    self.blocks[outputs[0]] = f"{self._owner(inputs[0])[0]}_rf"
                case "GetLoops":
                    block = self.blocks.get(inputs[0], inputs[0])
                    self.loops.update({loop: (block, axis) for axis, loop in enumerate(outputs)})
                case "SamplePerfectTile":
                    factors = [int(factor) for factor in self.decided[index]]
                    self._tile(inputs[0], factors)
                    self.values.update(zip(outputs, factors, strict=True))
                case "Split":
                    self.levels.update({loop: level for level, loop in enumerate(outputs)})
                    factored = zip(outputs, inputs[1:], strict=True)
                    self.extents.update({loop: self.values[by] for loop, by in factored if by in self.values})
                case "Vectorize":
                    self.vectorized = self.extents.get(inputs[0], self.vectorized)
                case "SampleCategorical":
                    self.values[outputs[0]] = int(attributes[0][self.decided[index]])
                case "Annotate":
                    self._annotate(attributes[0], inputs[1])
                case "SampleComputeLocation":
                    self._locate(inputs[0], int(self.decided[index]))
                case "ReverseComputeAt":
                    self.epilogue = self.levels.get(inputs[1], -1) + 1 or None
        return {
            "tiles": self.tiles,
            "unroll": self.bounds.get("unroll_explicit") or None,
            "vector_width": self._vector_width(),
            "parallel": self._parallel(),
            "epilogue": self.epilogue,
            "compute_at": self.compute_at,
        }

    def _owner(self, loop: str) -> tuple[str, int]:
        return self.loops.get(loop, ("", len(self.tiles)))

    def _tile(self, loop: str, factors: list[int]) -> None:
        block, axis = self._owner(loop)
        if self.tiled is None:
            self.tiled = block
        name = self._axis_name(block, axis)
        if block == self.tiled:
            self.tiles[name] = factors
            if len(factors) == _SPATIAL_PARTS:
                self.spatial.append(factors)
        else:
            self.tiles[f"{block}.{name}"] = factors

    def _axis_name(self, block: str, axis: int) -> str:
        names = self.axes.get(block, ())
        if axis >= len(names):
            return f"axis{axis}"
        return axis_name(block, names[axis])

    def _annotate(self, key: str, value: Any) -> None:
        bound = self.values.get(value) if isinstance(value, str) else value
        if isinstance(bound, int):
            self.bounds[key.removeprefix("meta_schedule.")] = bound

    def _locate(self, block: str, location: int) -> None:
        self.compute_at[self.blocks.get(block, block)] = _LOCATIONS.get(location, f"loop {location}")
        if location >= 0:
            self.deepest_shared = min(location + 1, self.deepest_shared or location + 1)

    def _vector_width(self) -> int | None:
        """The innermost loop's length where it fits the bound; a nest without tiles is split to just that bound."""
        if self.vectorized is not None:
            return self.vectorized if self.vectorized > 1 else None
        bound = self.bounds.get("vectorize")
        if bound is None or not self.tiles:
            return bound
        width = self.spatial[-1][-1] if self.spatial else 1
        return width if 1 < width <= bound else None

    def _parallel(self) -> int | None:
        """The spatial loops of the two outer levels, fused from the outside until their product passes the bound.

        Fusing ends where another block is computed under a loop: the epilogue, or a producer.
        """
        bound = self.bounds.get("parallel")
        if bound is None or not self.spatial:
            return None
        levels = 1 if self.epilogue == 1 else 2
        loops = [factors[level] for level in range(levels) for factors in self.spatial]
        product = 1
        for factor in loops[: self.deepest_shared]:
            product *= factor
            if product > bound:
                break
        return product
