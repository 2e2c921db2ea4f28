"""Decision tables and genomes: plain integers, no TVM."""

from __future__ import annotations

import json
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedules.decisions import DecisionSpace, Gene, GeneKind, factorizations, locations


def space() -> DecisionSpace:
    tiles, unrolls = factorizations(24, 3, 8), np.array([0, 16, 64])
    genes = (
        Gene(kind=GeneKind.TILE, instruction=2, block="b", axis=0, table=tiles, values=tiles),
        Gene(kind=GeneKind.CATEGORICAL, instruction=5, block="", axis=-1, table=np.arange(3)[:, None], values=unrolls),
        Gene(kind=GeneKind.LOCATION, instruction=7, block="pad", axis=-1, table=locations(), values=locations()[:, 0]),
    )
    return DecisionSpace(variant="tile-0", instructions=[["Nop", [], [], []]] * 8, genes=genes, anchor=None)


@given(st.integers(1, 512), st.integers(1, 4), st.sampled_from([0, 1, 16, 64]))
def test_factorizations_are_all_of_them_and_each_once(extent: int, parts: int, max_innermost: int) -> None:
    table = factorizations(extent, parts, max_innermost)
    rows = [tuple(row) for row in table.tolist()]
    assert all(prod(row) == extent for row in rows)
    assert all(max_innermost == 0 or row[-1] <= max_innermost for row in rows)
    assert len(set(rows)) == len(rows)
    if max_innermost == 0 and parts == 2:
        assert len(rows) == sum(extent % divisor == 0 for divisor in range(1, extent + 1))


@given(st.integers(0, 2**32 - 1))
def test_decisions_name_their_genome(seed: int) -> None:
    tables = space()
    for genome in tables.random(5, np.random.default_rng(seed)):
        found = tables.genome(tables.decisions(genome))
        assert found is not None
        assert found.tolist() == genome.tolist()


@given(st.integers(0, 2**32 - 1))
def test_children_stay_in_the_space_and_change_two_genes_at_most(seed: int) -> None:
    tables, rng = space(), np.random.default_rng(seed)
    parents = tables.random(20, rng)
    mutants, children = tables.mutate(parents, rng), tables.crossover(parents, 20, rng)
    for born in (mutants, children):
        assert (born >= 0).all()
        assert (born < tables.cardinalities).all()
    assert ((mutants != parents).sum(axis=1) <= 2).all()


def test_neighbours_are_one_prime_factor_or_one_entry_away() -> None:
    tables = space()
    start = tables.genome(((24, 1, 1), (0,), (-1,)))
    assert start is not None
    near = {tables.decisions(genome) for genome in tables.neighbours(start)}
    assert near == {
        ((12, 2, 1), (0,), (-1,)),
        ((12, 1, 2), (0,), (-1,)),
        ((8, 3, 1), (0,), (-1,)),
        ((8, 1, 3), (0,), (-1,)),
        ((24, 1, 1), (1,), (-1,)),
        ((24, 1, 1), (0,), (-2,)),
        ((24, 1, 1), (0,), (0,)),
    }


@pytest.mark.parametrize("decisions", [(), ((24, 1, 1),), ((5, 5, 5), (0,), (-1,)), ((24, 1, 1), (9,), (-1,))])
def test_decisions_of_another_space_have_no_genome(decisions: tuple[tuple[int, ...], ...]) -> None:
    assert space().genome(decisions) is None


def test_a_trace_carries_the_decisions_at_their_instructions() -> None:
    instructions, decided = json.loads(space().trace_json(((2, 3, 4), (1,), (-1,))))
    assert len(instructions) == 8
    assert decided == [[2, [2, 3, 4]], [5, 1], [7, -1]]


def test_the_size_counts_every_candidate() -> None:
    assert space().size == len(factorizations(24, 3, 8)) * 3 * len(locations())
