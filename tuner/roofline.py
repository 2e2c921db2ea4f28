"""What a device does at best: the two kernels behind a roofline, built for a target to be timed on it.

After Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (2009): the rate of
multiply-adds on data in registers and the first cache, and of copying what fits no cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tvm
from tvm import te
from tvm.s_tir import Schedule
from tvm.target import Target

from tuner.link import export_module
from tuner.targets import TargetSpec

_ROWS, _DEPTH, _REPEATS = 6, 128, 512
_COPIED_FLOATS = 1 << 24
_RUNS = 8


def build_roofline(spec: TargetSpec, output: Path) -> None:
    """A library with ``peak`` and ``copy``, each in the target's threads. Raises `BuildError`."""
    module = tvm.IRModule({"peak": _peak(spec), "copy": _copy(spec)})
    export_module(tvm.compile(module, target=Target(spec.tvm)), output, triple=spec.triple)


def time_roofline(library: Any, spec: TargetSpec, device: Any) -> tuple[float, float]:
    """GFLOP/s and GB/s (read and written) of a loaded library on its device: the best of eight runs."""

    def best_s(name: str, *shapes: tuple[int, ...]) -> float:
        arguments = [tvm.runtime.empty(shape, "float32", device) for shape in shapes]
        evaluator = library.time_evaluator(name, device, number=1, repeat=_RUNS)
        return float(min(evaluator(*arguments).results))

    columns, copied = _columns(spec), (spec.threads, _COPIED_FLOATS // spec.threads)
    peak_s = best_s(
        "peak",
        (spec.threads, _ROWS, _DEPTH),
        (spec.threads, _DEPTH, columns),
        (spec.threads, _REPEATS, _ROWS, columns),
    )
    flops = 2.0 * spec.threads * _REPEATS * _ROWS * _DEPTH * columns
    moved_bytes = 2.0 * 4 * copied[0] * copied[1]
    return flops / peak_s / 1e9, moved_bytes / best_s("copy", copied, copied) / 1e9


def _columns(spec: TargetSpec) -> int:
    """Two vectors: with six rows, twelve sums, which keep two multipliers busy and fit into sixteen registers."""
    return 2 * spec.vector_bits // 32


def _peak(spec: TargetSpec) -> tvm.tirx.PrimFunc:
    """A small matrix product from the first cache into registers, again and again in every thread."""
    columns = _columns(spec)
    a = te.placeholder((spec.threads, _ROWS, _DEPTH), "float32", name="a")
    b = te.placeholder((spec.threads, _DEPTH, columns), "float32", name="b")
    k = te.reduce_axis((0, _DEPTH), name="k")
    c = te.compute(
        (spec.threads, _REPEATS, _ROWS, columns),
        lambda thread, repeat, row, column: te.sum(a[thread, row, k] * b[thread, k, column], axis=k),
        name="c",
    )
    sch = Schedule(te.create_prim_func([a, b, c]))
    block = sch.get_sblock("c")
    written = sch.cache_write(block, 0, "global")
    thread, repeat, row, column, k = sch.get_loops(block)
    sch.reorder(k, row, column)
    sch.reverse_compute_at(written, repeat)
    sch.vectorize(sch.get_loops(written)[-1])
    sch.unroll(row)
    sch.vectorize(column)
    sch.parallel(thread)
    sch.decompose_reduction(block, k)
    return sch.mod["main"].with_attr("global_symbol", "peak")


def _copy(spec: TargetSpec) -> tvm.tirx.PrimFunc:
    shape = (spec.threads, _COPIED_FLOATS // spec.threads)
    source = te.placeholder(shape, "float32", name="source")
    sch = Schedule(te.create_prim_func([source, te.compute(shape, lambda *i: source(*i), name="target")]))
    thread, position = sch.get_loops(sch.get_sblock("target"))
    sch.parallel(thread)
    sch.vectorize(sch.split(position, [None, 16])[1])
    return sch.mod["main"].with_attr("global_symbol", "copy")
