"""Parallel, vectorize, unroll: bounds for what the postprocessors do to the outer and inner loops."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.schedule_rule import ParallelizeVectorizeUnroll, ScheduleRule

UNROLL_STEPS = (0, 16, 64)
"""Candidates for the unrolled body's size. 512, in MetaSchedule's defaults, never won a task."""

MAX_JOBS_PER_CORE = 16
"""More parallel iterations than this per core and the thread pool's overhead shows."""


def annotate_parallel_vectorize_unroll(*, max_jobs_per_core: int, max_vectorize_extent: int) -> ScheduleRule:
    """Mark the root block with how far its loops may be fused and run in parallel, vectorized and unrolled.

    Only the unroll step is sampled. The loops change when `postprocs` replays the annotations.

    Before::

        for i0, j0, k, i1, j1 in ...: C[...] += ...

    After (annotation; what becomes of the nest)::

        root: parallel=16 * cores, vectorize=64, unroll_explicit=sampled
        for i0_j0 in parallel(I0 * J0):
            for k in range(K):
                for i1 in unroll(I1):
                    for j1 in vectorized(J1): C[...] += ...
    """
    return ParallelizeVectorizeUnroll(
        max_jobs_per_core=max_jobs_per_core,
        max_vectorize_extent=max_vectorize_extent,
        unroll_max_steps=list(UNROLL_STEPS),
        unroll_explicit=True,
    )
