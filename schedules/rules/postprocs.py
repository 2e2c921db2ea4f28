"""Postprocessors: what happens to a schedule after its decisions, in this order."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.postproc import (
    DisallowDynamicLoop,
    Postproc,
    RewriteLayout,
    RewriteParallelVectorizeUnroll,
    RewriteReductionBlock,
)


def postprocs(*, moves_weights: bool = True) -> list[Postproc]:
    """The postprocessors of a CPU schedule, fresh objects; `RewriteLayout` only where weights may be moved.

    `DisallowDynamicLoop` rejects candidates with loops of variable extent before anything is spent on them.
    `RewriteParallelVectorizeUnroll` carries the root's annotations out; it comes before the reduction is split,
    because the split copies the loops around the initialization, with their kinds. `RewriteReductionBlock` moves the
    initialization out of the reduction's loops. `RewriteLayout` reorders buffers named by ``layout_free_buffers``
    (constant weights) into the order in which the finished nest reads them, so it comes last.

    Before::

        root: parallel=32, vectorize=64, unroll_explicit=16
        for i0, j0, k, i1, j1 in ...:
            if k == 0: C[i, j] = 0
            C[i, j] += A[i, k] * B[k, j]

    After::

        for k, j in grid(K, J): B_packed[j // J1, k, j % J1] = B[k, j]  # marked: moved out of the function by prepack
        for i0_j0 in parallel(I0 * J0):
            for i1, j1 in (range, vectorized): C[i, j] = 0
            for k in range(K):
                for i1, j1 in (unroll, vectorized): C[i, j] += A[i, k] * B_packed[j // J1, k, j % J1]
    """
    always = [DisallowDynamicLoop(), RewriteParallelVectorizeUnroll(), RewriteReductionBlock()]
    return [*always, RewriteLayout()] if moves_weights else always
