"""Reductions with too few outputs to keep the cores or the vector units busy."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.schedule_rule import AddRFactor, ScheduleRule


def split_long_reductions(*, max_jobs_per_core: int, max_innermost_factor: int) -> ScheduleRule:
    """Factor a long reduction into partial ones that run in parallel or side by side in vector lanes.

    Offers each reduction twice more, with the outer and with the inner part as the factored axis, where its outputs
    alone are fewer than its terms (global pooling, softmax, a matrix product with one row): a vector sum may not be
    reordered by LLVM without this, since floating point does not associate.

    Before::

        for i, k in grid(I, K): s[i] += x[i, k]

    After (the inner part factored; it can be vectorized)::

        for k0 in range(K0):
            for i, k1 in grid(I, K1): partial[i, k1] += x[i, k0 * K1 + k1]
        for i, k1 in grid(I, K1): s[i] += partial[i, k1]
    """
    return AddRFactor(max_jobs_per_core=max_jobs_per_core, max_innermost_factor=max_innermost_factor)
