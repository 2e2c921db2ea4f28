from __future__ import annotations

import numpy as np

from tests.tuner.search.spaces import matmul_space
from tuner.search.draft import Draft
from tuner.search.features import (
    WIDTH,
    Featurizer,
    Machine,
    analytic_scores,
    balance,
    footprint_bytes,
    parallel_chunks,
    tiling,
)

MACHINE = Machine(threads=2, vector_bits=512)


def genome(i: tuple[int, ...], j: tuple[int, ...], k: tuple[int, ...]) -> np.ndarray:
    space = matmul_space()
    found = space.genome((i, j, k, (1,)))
    assert found is not None
    return found[None]


def test_regions_multiply_the_tiles_inside_them() -> None:
    tiles = tiling(matmul_space(), genome((2, 4, 8, 4), (4, 2, 2, 16), (4, 64)))
    assert tiles is not None
    assert [extent[0] for extent in tiles.region(0)] == [4, 16, 1]
    assert [extent[0] for extent in tiles.region(2)] == [32, 32, 64]
    assert [extent[0] for extent in tiles.region(4)] == [128, 64, 256]


def test_footprints_of_a_matmul_tile() -> None:
    space = matmul_space()
    tiles = tiling(space, genome((2, 4, 8, 4), (4, 2, 2, 16), (4, 64)))
    assert tiles is not None
    # 32×64 of A, 64×32 of B, 32×32 of C, four bytes each
    assert [size[0] for size in footprint_bytes(space, tiles.region(2))] == [8192.0, 8192.0, 4096.0]


def test_parallel_loops_are_fused_until_the_bound() -> None:
    tiles = tiling(matmul_space(), genome((4, 16, 1, 4), (4, 4, 1, 16), (4, 64)))
    assert tiles is not None
    # 4 × 4 outer chunks; a further 16 would pass 2 threads × 16 jobs
    assert parallel_chunks(tiles, MACHINE)[0] == 16
    assert balance(np.array([1.0, 2.0, 3.0]), 2).tolist() == [0.5, 1.0, 0.75]


def test_the_prior_prefers_full_vectors_that_fit_registers() -> None:
    space = matmul_space()
    good = analytic_scores(space, genome((8, 4, 1, 8), (8, 1, 2, 16), (4, 64)), MACHINE)
    scalar = analytic_scores(space, genome((8, 4, 1, 8), (8, 2, 16, 1), (4, 64)), MACHINE)
    spilling = analytic_scores(space, genome((2, 1, 2, 64), (2, 1, 2, 64), (4, 64)), MACHINE)
    one_thread = analytic_scores(space, genome((1, 1, 32, 8), (1, 1, 16, 16), (4, 64)), MACHINE)
    assert good[0] > max(scalar[0], spilling[0], one_thread[0])


def test_rows_have_one_width_and_are_finite() -> None:
    space, rng = matmul_space(), np.random.default_rng(0)
    rows = Featurizer([space, space], flops=2.0 * 256**3, machine=MACHINE)(1, space.random(100, rng))
    bare = matmul_space()
    without_anchor = type(bare)(variant="x", instructions=[], genes=bare.genes[3:], anchor=None)
    others = Featurizer([without_anchor], flops=10.0, machine=MACHINE)(0, without_anchor.random(5, rng))
    assert rows.shape[1] == others.shape[1]
    assert np.isfinite(rows).all()
    assert np.isfinite(others).all()


def test_rows_of_drafts_keep_their_order() -> None:
    space, rng = matmul_space(), np.random.default_rng(0)
    featurizer = Featurizer([space, space], flops=2.0 * 256**3, machine=MACHINE)
    drafts = [Draft(space=int(rng.integers(2)), genome=space.random(1, rng)[0]) for _ in range(9)]
    rows = featurizer.rows(drafts)
    assert rows.shape == (9, WIDTH)
    for draft, row in zip(drafts, rows, strict=True):
        np.testing.assert_array_equal(featurizer(draft.space, draft.genome[None])[0], row)
