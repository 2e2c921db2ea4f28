"""Reductions with too few outputs to keep the cores or the vector units busy."""

from __future__ import annotations

from typing import Any

from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule import TuneContext
from tvm.s_tir.meta_schedule.schedule_rule import AddRFactor, PyScheduleRule, ScheduleRule
from tvm.s_tir.schedule import SBlockRV, Schedule

from schedules.rules.block_shape import has_more_outputs_than_terms, is_windowed, reduces_side_by_side


def split_long_reductions(*, max_jobs_per_core: int, max_innermost_factor: int) -> ScheduleRule:
    """Factor a long reduction into partial ones that run in parallel or side by side in vector lanes.

    Offers each reduction twice more, with the outer and with the inner part as the factored axis, where its outputs
    alone are fewer than its terms (softmax, a matrix product with one row): a vector sum may not be reordered by
    LLVM without this, since floating point does not associate. Pooling and sums over outer axes are left out while
    they have outputs enough: their vector lanes hold neighbouring outputs, and MetaSchedule's rule would triple their
    design spaces with partial sums of nine terms.

    Before::

        for i, k in grid(I, K): s[i] += x[i, k]

    After (the inner part factored; it can be vectorized)::

        for k0 in range(K0):
            for i, k1 in grid(I, K1): partial[i, k1] += x[i, k0 * K1 + k1]
        for i, k1 in grid(I, K1): s[i] += partial[i, k1]
    """
    return _SplitLongReductions(max_jobs_per_core, max_innermost_factor)


@derived_object
class _SplitLongReductions(PyScheduleRule):
    def __init__(self, max_jobs_per_core: int, max_innermost_factor: int) -> None:
        super().__init__()
        self._arguments = (max_jobs_per_core, max_innermost_factor)
        self._rule = AddRFactor(max_jobs_per_core=max_jobs_per_core, max_innermost_factor=max_innermost_factor)

    def _initialize_with_tune_context(self, context: TuneContext) -> None:
        self._rule._initialize_with_tune_context(context)

    def apply(self, sch: Schedule, block: SBlockRV) -> list[Schedule]:
        statement = sch.get(block)
        fills_lanes = is_windowed(statement) or reduces_side_by_side(statement)
        if fills_lanes and has_more_outputs_than_terms(statement):
            return [sch]
        return list(self._rule.apply(sch, block))

    def clone(self) -> Any:
        return _SplitLongReductions(*self._arguments)
