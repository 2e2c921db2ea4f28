"""What scheduled functions allocate for themselves while they run: padded inputs, tiles of partial sums."""

from __future__ import annotations

import math
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx, transform
from tvm.ir import IRModule
from tvm.tirx import AllocBuffer, For, ForKind, IfThenElse, IntImm, SeqStmt

_STACK_BYTES = 1024
"""Less than this lies on the stack (TVM's ``kMaxStackAlloca``)."""


def workspace_bytes(mod: IRModule, *, threads: int) -> int:
    """The most that a module's PrimFuncs hold at a time beside their arguments, on ``threads`` threads.

    TVM's threads keep what they have allocated for the next function: each has as much as the function that needs most.
    """
    functions = IRModule({name: body for name, body in mod.functions.items() if isinstance(body, tirx.PrimFunc)})
    needs = [_need(function.body) for function in _with_allocations(functions).functions.values()]
    most = max((caller + worker for caller, worker in needs), default=0)
    return most + (threads - 1) * max((worker for _, worker in needs), default=0)


def _with_allocations(mod: IRModule) -> IRModule:
    """The functions as far on their way to LLVM as it takes for their buffers to have their final extents."""
    return transform.Sequential(
        [
            s_tir.transform.CanonicalizeLoop(),
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
            s_tir.transform.ConvertBlocksToOpaque(),
            s_tir.transform.CompactBufferAllocation(),
            s_tir.transform.LowerMatchBuffer(),
            s_tir.transform.StmtSimplify(),
            s_tir.transform.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.VectorizeLoop(True),
            tirx.transform.StorageRewrite(),
        ]
    )(mod)


def _need(statement: Any) -> tuple[int, int]:
    """Bytes on the calling thread, and on each thread of a parallel loop inside (the calling one is one of them)."""
    match statement:
        case SeqStmt():
            own = sum(_bytes(each) for each in statement.seq if isinstance(each, AllocBuffer))
            inside = [_need(each) for each in statement.seq]
            return own + max(caller for caller, _ in inside), max(worker for _, worker in inside)
        case For():
            caller, worker = _need(statement.body)
            return (0, caller + worker) if statement.kind == ForKind.PARALLEL else (caller, worker)
        case IfThenElse():
            branches = [_need(each) for each in (statement.then_case, statement.else_case) if each is not None]
            return max(caller for caller, _ in branches), max(worker for _, worker in branches)
    body = getattr(statement, "body", None)
    return (0, 0) if body is None else _need(body)


def _bytes(allocation: AllocBuffer) -> int:
    shape = allocation.buffer.shape
    if not all(isinstance(extent, IntImm) for extent in shape):
        return 0
    dtype = tvm_ffi.dtype(str(allocation.buffer.dtype))  # of vectors, where StorageRewrite made some
    size = math.prod(int(extent) for extent in shape) * -(-dtype.bits * dtype.lanes // 8)
    return size if size >= _STACK_BYTES else 0
