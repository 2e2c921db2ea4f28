"""What scheduled functions allocate for themselves while they run: padded inputs, tiles of partial sums."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import zip_longest
from typing import Any

import tvm_ffi
from tvm import s_tir, tirx, transform
from tvm.ir import IRModule
from tvm.tirx import AllocBuffer, For, ForKind, IfThenElse, IntImm, SeqStmt

_STACK_BYTES = 1024
"""Less than this lies on the stack (TVM's ``kMaxStackAlloca``)."""
_PAGE_BYTES = 4096
"""Of TVM's pools (``kWorkspacePageSize``)."""

Pieces = tuple[int, ...]
"""Bytes of allocations that are held at the same time, largest first."""


def workspace_bytes(mod: IRModule, *, threads: int) -> int:
    """The most that a module's PrimFuncs hold at a time beside their arguments, on ``threads`` threads.

    TVM's threads keep what they have allocated for the next function, in whole pages (``WorkspacePool`` in
    src/runtime/workspace_pool.cc): the largest piece of a thread becomes as large as the largest piece of any function,
    the second largest as the second largest of any, and so on.
    """
    functions = IRModule({name: body for name, body in mod.functions.items() if isinstance(body, tirx.PrimFunc)})
    needs = [_need(function.body) for function in _with_allocations(functions).functions.values()]
    calling = _largest(_together(caller, worker) for caller, worker in needs)
    other = _largest(worker for _, worker in needs)
    return sum(calling) + (threads - 1) * sum(other)


def with_final_extents(functions: IRModule) -> IRModule:
    """Scheduled functions as far on their way to LLVM as their buffers need for their final places and extents."""
    return transform.Sequential(
        [
            s_tir.transform.CanonicalizeLoop(),
            s_tir.transform.LowerInitBlock(),
            s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
            s_tir.transform.ConvertBlocksToOpaque(),
            s_tir.transform.CompactBufferAllocation(),
        ]
    )(functions)


def _with_allocations(functions: IRModule) -> IRModule:
    """Further on the same way, to the allocations that are left when buffers have been reused."""
    return transform.Sequential(
        [
            s_tir.transform.LowerMatchBuffer(),
            s_tir.transform.StmtSimplify(),
            s_tir.transform.LowerOpaqueBlock(),
            tirx.transform.FlattenBuffer(),
            tirx.transform.VectorizeLoop(True),
            tirx.transform.StorageRewrite(),
        ]
    )(with_final_extents(functions))


def _need(statement: Any) -> tuple[Pieces, Pieces]:
    """Pieces on the calling thread, and on each thread of a parallel loop inside (the calling one is one of them)."""
    match statement:
        case SeqStmt():
            own = [size for each in statement.seq if isinstance(each, AllocBuffer) and (size := _bytes(each))]
            inside = [_need(each) for each in statement.seq]
            callers = _largest(caller for caller, _ in inside)
            return _together(tuple(own), callers), _largest(worker for _, worker in inside)
        case For():
            caller, worker = _need(statement.body)
            return ((), _together(caller, worker)) if statement.kind == ForKind.PARALLEL else (caller, worker)
        case IfThenElse():
            branches = [_need(each) for each in (statement.then_case, statement.else_case) if each is not None]
            return _largest(caller for caller, _ in branches), _largest(worker for _, worker in branches)
    body = getattr(statement, "body", None)
    return ((), ()) if body is None else _need(body)


def _together(one: Pieces, other: Pieces) -> Pieces:
    """Pieces that are held at the same time."""
    return tuple(sorted(one + other, reverse=True))


def _largest(several: Iterable[Pieces]) -> Pieces:
    """Pieces that serve several needs one after the other."""
    return tuple(max(sizes) for sizes in zip_longest(*several, fillvalue=0))


def _bytes(allocation: AllocBuffer) -> int:
    shape = allocation.buffer.shape
    if not all(isinstance(extent, IntImm) for extent in shape):
        return 0
    dtype = tvm_ffi.dtype(str(allocation.buffer.dtype))  # of vectors, where StorageRewrite made some
    size = math.prod(int(extent) for extent in shape) * -(-dtype.bits * dtype.lanes // 8)
    return -(-size // _PAGE_BYTES) * _PAGE_BYTES if size >= _STACK_BYTES else 0
