"""The tiling design space: an explicit rule set over MetaSchedule's C++ rules, nothing taken from its defaults."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.schedule_rule import ScheduleRule

from schedules.rules.compute_location import choose_compute_location
from schedules.rules.inlining import inline_constant_scalars, inline_elementwise
from schedules.rules.parallel import MAX_JOBS_PER_CORE, annotate_parallel_vectorize_unroll
from schedules.rules.postprocs import postprocs
from schedules.rules.reduction import split_long_reductions
from schedules.rules.tiling import tile_with_reuse

__all__ = ["postprocs", "tiling_rules"]

_FLOAT_BITS = 32
_VECTORS_PER_TILE = 4


def tiling_rules(*, cores: int, vector_bits: int) -> list[ScheduleRule]:
    """The rules of a CPU design space in the order in which every block sees them, fresh objects.

    ``cores`` bounds parallelism (one core: no parallel reductions), ``vector_bits`` the vectorized extent and the
    innermost tile: four registers of floats, 64 on AVX-512, 32 on AVX2, and never under 16. Blocks are visited in
    post-order; a rule that does not apply hands the schedule on unchanged.
    """
    lanes = max(16, _VECTORS_PER_TILE * vector_bits // _FLOAT_BITS)
    return [
        inline_constant_scalars(),
        inline_elementwise(),
        split_long_reductions(max_jobs_per_core=MAX_JOBS_PER_CORE, max_innermost_factor=lanes),
        tile_with_reuse(max_innermost_factor=64),
        annotate_parallel_vectorize_unroll(max_jobs_per_core=MAX_JOBS_PER_CORE, max_vectorize_extent=lanes),
        choose_compute_location(),
    ]
