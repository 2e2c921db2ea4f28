"""Decision vectors: a design space as tables of integers, so that candidates are drafted without replay.

Sampling, mutating and crossing over a trace inside TVM costs up to 20 ms a candidate; on integer genomes over
precomputed tables it costs microseconds for thousands. A genome has one index per sampling instruction (gene)
of the space's trace; the gene's table turns it into the instruction's decision. NumPy only, no TVM.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Genomes = NDArray[np.int32]
"""Genomes of one space: shape (candidates, genes), each entry an index into that gene's table."""

# Loops under which a block may be computed; -1 is left at the root, -2 is inlined.
_LOCATIONS = np.arange(-2, 14)[:, None]


class GeneKind(StrEnum):
    TILE = "tile"
    CATEGORICAL = "categorical"
    LOCATION = "location"


@dataclass(frozen=True, kw_only=True, eq=False)
class Gene:
    """One sampling instruction: ``table[index]`` is its decision (tile factors outermost first; for a
    categorical the *position* of the candidate, whose value is ``values[index]``; for a location the loop).

    ``block`` is the block it schedules, ``axis`` that block's iterator (tiles only, else -1). ``reduces`` says of a
    location that its block is a reduction: under a loop of its consumer it would be computed over and over.
    """

    kind: GeneKind
    instruction: int
    block: str
    axis: int
    table: NDArray[np.int64]
    values: NDArray[np.int64]
    reduces: bool = False

    @property
    def choices(self) -> int:
        return len(self.table)

    @cached_property
    def _positions(self) -> dict[tuple[int, ...], int]:
        return {tuple(int(value) for value in row): index for index, row in enumerate(self.table)}

    def index_of(self, decision: int | list[int]) -> int | None:
        """The index whose decision this is, None where the table has no such row."""
        return self._positions.get(tuple(decision) if isinstance(decision, list) else (decision,))

    def steps(self, index: int) -> list[int]:
        """The indices one small step away: a prime factor moved between two tile levels, or the entries beside it."""
        if self.kind is not GeneKind.TILE:
            return [near for near in (index - 1, index + 1) if 0 <= near < self.choices]
        row = [int(factor) for factor in self.table[index]]
        found = []
        for source, target in itertools.permutations(range(len(row)), 2):
            for prime in _prime_factors(row[source]):
                moved = list(row)
                moved[source] //= prime
                moved[target] *= prime
                found.append(self.index_of(moved))  # None where the innermost factor may not be that large
        return [near for near in found if near is not None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Access:
    """How one buffer is read or written by the anchor block.

    ``strides[d, a]`` is the absolute coefficient of iterator ``a`` in the start of dimension ``d``: with a tile
    of ``t[a]`` along every iterator the buffer's footprint is ``∏_d (1 + Σ_a strides[d, a] · (t[a] − 1))``.
    """

    strides: NDArray[np.int64]
    item_bytes: int
    is_write: bool
    layout_free: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class Anchor:
    """The block that dominates a task: its iterators' names, extents and kinds, and its buffer accesses."""

    block: str
    axes: tuple[str, ...]
    extents: tuple[int, ...]
    reduction: tuple[bool, ...]
    accesses: tuple[Access, ...]


@dataclass(frozen=True, kw_only=True)
class RowStage:
    """One operator of a chain that is computed row by row (`schedules.windows`).

    ``pixels`` and ``channels`` are the positions of the genes that tile its rows (outer factor, register tile),
    ``work`` is its multiplications and additions in one step, ``mixes_channels`` tells a convolution from what computes
    each channel alone.
    """

    pixels: int
    channels: int
    work: float
    mixes_channels: bool


@dataclass(frozen=True, kw_only=True, eq=False)
class DecisionSpace:
    """One design space (sketch) of a task: its trace's instructions and the genes that they sample; ``stages`` where
    the task is a chain."""

    variant: str
    instructions: list[Any]
    genes: tuple[Gene, ...]
    anchor: Anchor | None
    stages: tuple[RowStage, ...] = ()

    @cached_property
    def cardinalities(self) -> NDArray[np.int64]:
        return np.array([gene.choices for gene in self.genes], dtype=np.int64)

    @property
    def size(self) -> float:
        """How many distinct genomes there are."""
        return float(np.prod(self.cardinalities.astype(np.float64))) if self.genes else 1.0

    def random(self, count: int, rng: np.random.Generator) -> Genomes:
        return (rng.random((count, len(self.genes))) * self.cardinalities).astype(np.int32)

    def mutate(self, genomes: Genomes, rng: np.random.Generator) -> Genomes:
        """A copy with one gene of each genome drawn anew, and a second one for every third genome."""
        if not self.genes:
            return genomes.copy()
        mutated = genomes.copy()
        rows = np.arange(len(genomes))
        for chosen in (rows, rows[rng.random(len(rows)) < 0.35]):
            gene = rng.integers(0, len(self.genes), len(chosen))
            mutated[chosen, gene] = (rng.random(len(chosen)) * self.cardinalities[gene]).astype(np.int32)
        return mutated

    def crossover(self, genomes: Genomes, count: int, rng: np.random.Generator) -> Genomes:
        """``count`` children, each gene taken from one of two random parents."""
        first = genomes[rng.integers(0, len(genomes), count)]
        second = genomes[rng.integers(0, len(genomes), count)]
        return np.where(rng.random(first.shape) < 0.5, first, second)

    def neighbours(self, genome: NDArray[np.int32]) -> Genomes:
        """Every genome that is one small step of one gene away."""
        stepped = [
            (position, near) for position, gene in enumerate(self.genes) for near in gene.steps(int(genome[position]))
        ]
        born = np.repeat(genome[None], len(stepped), axis=0)
        for row, (position, near) in enumerate(stepped):
            born[row, position] = near
        return born

    def decisions(self, genome: NDArray[np.int32]) -> tuple[tuple[int, ...], ...]:
        """The genome's decisions, one tuple a gene: what a record stores."""
        return tuple(
            tuple(int(value) for value in gene.table[index]) for gene, index in zip(self.genes, genome, strict=True)
        )

    def genome(self, decisions: tuple[tuple[int, ...], ...]) -> NDArray[np.int32] | None:
        """The genome with these decisions; None when they are not of this space (another rule set made them)."""
        if len(decisions) != len(self.genes):
            return None
        found = [gene.index_of(list(row)) for gene, row in zip(self.genes, decisions, strict=True)]
        return None if None in found else np.array(found, dtype=np.int32)

    def trace_json(self, decisions: tuple[tuple[int, ...], ...]) -> str:
        """The trace with these decisions, in TVM's own JSON (``Trace.as_json``)."""
        sampled = [
            [gene.instruction, list(row) if gene.kind is GeneKind.TILE else row[0]]
            for gene, row in zip(self.genes, decisions, strict=True)
        ]
        return json.dumps([self.instructions, sampled], separators=(",", ":"))


@lru_cache(maxsize=1024)
def factorizations(extent: int, parts: int, max_innermost: int) -> NDArray[np.int64]:
    """Every way to write ``extent`` as an ordered product of ``parts`` factors, the last at most ``max_innermost``
    (0: no limit). Shape (ways, parts), outermost factor first."""
    if parts == 1:
        fits = max_innermost <= 0 or extent <= max_innermost
        return np.array([[extent]] if fits else [], dtype=np.int64).reshape(-1, 1)
    rows = [
        np.insert(factorizations(extent // divisor, parts - 1, max_innermost), 0, divisor, axis=1)
        for divisor in range(1, extent + 1)
        if extent % divisor == 0
    ]
    return np.concatenate(rows)


def _prime_factors(number: int) -> set[int]:
    """The distinct primes that divide a tile factor."""
    primes, divisor = set(), 2
    while number > 1:
        if divisor * divisor > number:
            divisor = number
        while number % divisor == 0:
            primes.add(divisor)
            number //= divisor
        divisor += 1
    return primes


def locations() -> NDArray[np.int64]:
    """The table of a compute-location gene."""
    return _LOCATIONS
