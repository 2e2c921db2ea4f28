"""Multi-level tiling: the loop nest of every block that reads something more than once."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.schedule_rule import MultiLevelTiling, ReuseType, ScheduleRule
from tvm.s_tir.sblock_scope import StmtSRef
from tvm.s_tir.schedule import Schedule

from schedules.rules.block_shape import is_windowed, reduces_side_by_side

STRUCTURE = "SSRSRS"
"""S: every spatial axis, R: every reduction axis, outermost first. Four spatial levels and two of reduction."""

EPILOGUE_LEVELS = (1, 2)
"""After how many spatial tile levels the epilogue may be computed: per outer or per middle tile."""


def tile_with_reuse(*, max_innermost_factor: int) -> ScheduleRule:
    """Tile spatial axes four times, reduction axes twice, and keep a tile's accumulators until its epilogue has run.

    Applies to reductions of which an operand is reused (convolutions, grouped and depthwise ones, matrix products) and,
    beyond MetaSchedule's own condition, to pooling and to sums over outer axes (`is_worth_tiling`): only tiling gives
    those an innermost spatial loop that can be vectorized. Tile factors are perfect, sampled, and at most
    ``max_innermost_factor`` on the innermost level. There are up to three design spaces per block: the epilogue after
    the first or the second spatial level, or not fused at all.

    Before::

        for i, j, k in grid(I, J, K): C[i, j] += A[i, k] * B[k, j]
        for i, j in grid(I, J):       D[i, j] = max(C[i, j], 0)

    After (the epilogue at the second level)::

        for i0, j0 in grid(I0, J0):
            for i1, j1 in grid(I1, J1):
                for k0 in range(K0):
                    for i2, j2 in grid(I2, J2):
                        for k1 in range(K1):
                            for i3, j3 in grid(I3, J3): C[i, j] += A[i, k] * B[k, j]
                for i, j in grid(I2 * I3, J2 * J3): D[i, j] = max(C[i, j], 0)

    The structure is Ansor's (Zheng et al., OSDI 2020) for CPUs.
    """
    return MultiLevelTiling(
        structure=STRUCTURE,
        tile_binds=None,
        max_innermost_factor=max_innermost_factor,
        vector_load_lens=None,
        reuse_read=None,
        reuse_write=ReuseType(req="may", levels=list(EPILOGUE_LEVELS), scope="global"),
        filter_fn=is_worth_tiling,
    )


def is_worth_tiling(_schedule: Schedule, block: StmtSRef) -> bool:
    """What `tile_with_reuse` tiles beyond blocks that reuse an operand: windows, and sums of neighbouring columns."""
    return is_windowed(block.stmt) or reduces_side_by_side(block.stmt)
