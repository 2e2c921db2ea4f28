"""The design space of a GPU: an explicit rule set over MetaSchedule's C++ rules, as `schedules.rules` is for CPUs."""

from __future__ import annotations

from tvm.s_tir.meta_schedule.postproc import (
    DisallowDynamicLoop,
    Postproc,
    RewriteCooperativeFetch,
    RewriteParallelVectorizeUnroll,
    RewriteReductionBlock,
    RewriteUnboundBlock,
    VerifyGPUCode,
)
from tvm.s_tir.meta_schedule.schedule_rule import (
    AutoBind,
    AutoInline,
    CrossThreadReduction,
    InlineConstantScalars,
    MultiLevelTiling,
    ParallelizeVectorizeUnroll,
    ReuseType,
    ScheduleRule,
)
from tvm.s_tir.schedule import Trace

STRUCTURE = "SSSRRSRS"
"""S: every spatial axis, R: every reduction axis, outermost first: blocks, virtual threads, threads, what a thread
computes around and inside of a step."""
_BLOCKS = 256
_THREADS = [32, 64, 128, 256, 512, 1024]


def gpu_rules() -> list[ScheduleRule]:
    """The rules in the order in which every block sees them, fresh objects.

    Before::

        for i, j, k in grid(I, J, K): C[i, j] += A[i, k] * B[k, j]

    After::

        for i0_j0 in thread_binding("blockIdx.x"):
            for i1_j1 in thread_binding("vthread.x"):
                for i2_j2 in thread_binding("threadIdx.x"):
                    for k0 in range(K0):
                        A_shared, B_shared = …          # fetched by all threads of the block together
                        for k1, i3, j3, k2, i4, j4 in grid(…): C_local[…] += A_shared[…] * B_shared[…]
                    C[…] = C_local[…]

    The structure is Ansor's (Zheng et al., OSDI 2020) for GPUs.
    """
    return [
        InlineConstantScalars(),
        _inline(),
        MultiLevelTiling(
            structure=STRUCTURE,
            tile_binds=["blockIdx.x", "vthread.x", "threadIdx.x"],
            max_innermost_factor=64,
            vector_load_lens=[1, 2, 4],
            reuse_read=ReuseType(req="must", levels=[4], scope="shared"),
            reuse_write=ReuseType(req="must", levels=[3], scope="local"),
        ),
        _inline(),  # what reads a tiled block, and was kept until that was tiled
        CrossThreadReduction(thread_extents=[4, 8, 16, 32, 64, 128, 256]),
        ParallelizeVectorizeUnroll(
            max_jobs_per_core=-1, max_vectorize_extent=-1, unroll_max_steps=[0, 16, 64, 512], unroll_explicit=True
        ),
        AutoBind(max_threadblocks=_BLOCKS, thread_extents=_THREADS),
    ]


def gpu_postprocs() -> list[Postproc]:
    """The postprocessors of a GPU schedule, fresh objects: `VerifyGPUCode` refuses what the target has no room for."""
    return [
        DisallowDynamicLoop(),
        RewriteCooperativeFetch(),
        RewriteUnboundBlock(_BLOCKS),
        RewriteParallelVectorizeUnroll(),
        RewriteReductionBlock(),
        VerifyGPUCode(),
    ]


def is_pipelined(trace: Trace) -> bool:
    """Whether a sketch fetches the next step while it computes, which MetaSchedule adds for compute capability 8.0 and
    later: nothing that runs on a CPU can check that."""
    return any(
        instruction.kind.name == "Annotate" and str(instruction.attrs[0]).startswith("software_pipeline")
        for instruction in trace.insts
    )


def _inline() -> ScheduleRule:
    return AutoInline(
        into_producer=True,
        into_consumer=True,
        inline_const_tensor=True,
        disallow_if_then_else=False,
        require_injective=False,
        require_ordered=False,
    )
