"""Threads of GPU schedules: given to what has none, and taken away again where there is no GPU."""

from __future__ import annotations

import json
from itertools import takewhile
from operator import itemgetter

import tvm
from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.target import Target
from tvm.tirx import PrimFunc

from schedules.blocks import block_names

_THREADS = 256
_DATA_PARALLEL = 0  # TVM's IterVar kind of a spatial axis
_SERIAL, _PARALLEL, _BOUND = 0, 1, 4  # TVM's ForKind
_NONE = 0  # the node of TVM's JSON that is no object


def is_gpu(target: Target) -> bool:
    return "gpu" in target.keys


def bind_the_rest(mod: IRModule) -> IRModule:
    """Bind every function without a schedule to threads, one for each element: code outside of threads is none for a
    GPU.

    Before::

        for i, j, k in grid(I, J, K): C[i, j] += A[i, k]

    After::

        for i_j_0 in thread_binding("blockIdx.x"):
            for i_j_1 in thread_binding(256, "threadIdx.x"):
                for k in range(K): C[i, j] += A[i, k]
    """
    changed = {
        name: _bound(body)
        if isinstance(body, PrimFunc) and not (body.attrs and body.attrs.get("tirx.is_scheduled"))
        else body
        for name, body in mod.functions.items()
    }
    return IRModule(changed, attrs=mod.attrs)


def _bound(function: PrimFunc) -> PrimFunc:
    """TVM's `DefaultGPUSchedule` does the same for functions of one block only."""
    sch = Schedule(IRModule({"main": function}), debug_mask="none", error_render_level="none")
    for name in block_names(sch.mod):
        if name == "root":
            continue
        block = sch.get_sblock(name)
        loops = sch.get_loops(block)
        is_spatial = [int(iterator.iter_type) == _DATA_PARALLEL for iterator in sch.get(block).iter_vars]
        spatial = [loop for loop, _ in takewhile(itemgetter(1), zip(loops, is_spatial, strict=False))]
        if not spatial:
            spatial = [sch.add_unit_loop(loops[0] if loops else block)]
        outer, inner = sch.split(sch.fuse(*spatial), [None, _THREADS])
        sch.bind(outer, "blockIdx.x")
        sch.bind(inner, "threadIdx.x")
    return sch.mod["main"].with_attr("tirx.is_scheduled", True)


def one_after_another(mod: IRModule) -> IRModule:
    """The same functions with the threads of a block computing one after another, for a CPU.

    What a schedule computes does not depend on the order of its threads. Threads that fetch together each fetch
    everything here, so that this is for checking, not for use.

    Before::

        for i0 in thread_binding("blockIdx.x"):
            for i1 in thread_binding("threadIdx.x"): C_shared[i1] = A[i0, i1]

    After::

        for i0 in parallel:
            for i1 in range: C[i1] = A[i0, i1]
    """
    changed = {name: _serial(body) if isinstance(body, PrimFunc) else body for name, body in mod.functions.items()}
    return IRModule(changed, attrs=mod.attrs)


def _serial(function: PrimFunc) -> PrimFunc:
    """Rewritten in TVM's own JSON, where every loop and every buffer is a node."""
    graph = json.loads(tvm.ir.save_json(function))
    nodes = graph["nodes"]
    bound = [node["data"] for node in nodes if node["type"] == "tirx.For" and node["data"]["kind"] == _BOUND]
    if not bound:
        return function
    for loop in bound:
        tag = nodes[nodes[loop["thread_binding"]]["data"]["thread_tag"]]["data"]
        loop.update(kind=_PARALLEL if tag.startswith("blockIdx") else _SERIAL, thread_binding=_NONE)
    for index in {node["data"]["storage_scope"] for node in nodes if node["type"] == "tirx.BufferType"}:
        nodes[index]["data"] = "global"
    return tvm.ir.load_json(json.dumps(graph))
