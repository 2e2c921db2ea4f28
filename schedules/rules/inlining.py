"""Inlining: elementwise producers disappear into the blocks that read them."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.schedule_rule import AutoInline, InlineConstantScalars, ScheduleRule

EVALUATED_ONCE = ("tirx.exp",)
"""Operations too dear to be evaluated again by every consumer: softmax reads its exponentials twice."""


def inline_constant_scalars() -> ScheduleRule:
    """Constants that are blocks of their own become literals.

    Such a block counts as a second producer and keeps `inline_elementwise` from doing its work, so this goes first.

    Before::

        for _ in range(1): zero[()] = 0.0
        for i in range(N): out[i] = max(x[i], zero[()])

    After::

        for i in range(N): out[i] = max(x[i], 0.0)
    """
    return InlineConstantScalars()


def inline_elementwise() -> ScheduleRule:
    """Injective producers are inlined into their consumers, so that a chain of them is one pass over memory.

    Left alone are blocks with a branch in them (padding: its copy is placed by `choose_compute_location`), blocks whose
    reads are not in the order of their writes (transposes), and those with an operation in `EVALUATED_ONCE`.
    An epilogue (bias, residual, activation) after a reduction becomes one block, which `tile_with_reuse` then writes
    tile by tile.

    Before::

        for i in range(N): a[i] = x[i] + bias[i]
        for i in range(N): out[i] = max(a[i], 0.0)

    After::

        for i in range(N): out[i] = max(x[i] + bias[i], 0.0)
    """
    return AutoInline(
        into_producer=False,
        into_consumer=True,
        inline_const_tensor=True,
        disallow_if_then_else=True,
        require_injective=True,
        require_ordered=True,
        disallow_op=list(EVALUATED_ONCE),
    )
