"""Multi-level tiling: the loop nest of every block that reads something more than once."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.schedule_rule import MultiLevelTiling, ReuseType, ScheduleRule
from tvm.s_tir.schedule import Schedule
from tvm.tirx import Expr, IterVar, Var
from tvm.tirx.analysis import undefined_vars

STRUCTURE = "SSRSRS"
"""S: every spatial axis, R: every reduction axis, outermost first. Four spatial levels and two of reduction."""

EPILOGUE_LEVELS = (1, 2)
"""After how many spatial tile levels the epilogue may be computed: per outer or per middle tile."""


def tile_with_reuse(*, max_innermost_factor: int) -> ScheduleRule:
    """Tile spatial axes four times, reduction axes twice, and keep a tile's accumulators until its epilogue has run.

    Applies to reductions of which an operand is reused (convolutions, grouped and depthwise ones, matrix products) and,
    beyond MetaSchedule's own condition, to windowed reductions (pooling, see `is_windowed_reduction`): only tiling
    gives those an innermost spatial loop that can be vectorized. Tile factors are perfect, sampled, and at most
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
        filter_fn=is_windowed_reduction,
    )


def is_windowed_reduction(schedule: Schedule, block: object) -> bool:
    """Whether a block reduces over a window that slides along a spatial axis: an index that adds one to the other.

    ``out[n, h, w, c] max= x[n, 2*h + kh, 2*w + kw, c]`` is one; a sum over a whole axis is none, and neither is an
    elementwise block. Whole-axis reductions belong to `split_long_reductions`.
    """
    statement = block.stmt if hasattr(block, "stmt") else schedule.get(block)
    spatial = [axis.var for axis in statement.iter_vars if axis.iter_type == IterVar.DataPar]
    reduced = [axis.var for axis in statement.iter_vars if axis.iter_type == IterVar.CommReduce]
    if not reduced or not spatial:
        return False
    return any(
        _mentions(dimension.min, spatial) and _mentions(dimension.min, reduced)
        for read in statement.reads
        for dimension in read.region
    )


def _mentions(expression: Expr, variables: list[Var]) -> bool:
    return any(used.same_as(variable) for used in undefined_vars(expression) for variable in variables)
