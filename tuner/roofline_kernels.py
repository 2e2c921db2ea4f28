"""The two kernels behind a roofline, in every module, to be timed wherever it runs.

They find the rate of multiply-adds on data in registers and the first cache, and of copying what fits no cache
(`tuner.roofline`). They are compiled like the network: a BLAS library on the device may know the processor less well
(NumPy's reached half of the peak of a Zen 5).
"""

from __future__ import annotations

import math

import tvm
from tvm import te
from tvm.s_tir import Schedule

from tuner.targets import TargetSpec

_ROWS, _DEPTH, _REPEATS = 6, 128, 512
_COPIED_FLOATS = 1 << 24
_PEAK, _COPY = "tessera_roofline_peak", "tessera_roofline_copy"


def with_roofline(module: tvm.IRModule, spec: TargetSpec) -> tvm.IRModule:
    """A module with the kernels in it, each in the target's threads; GPUs have none."""
    if spec.is_gpu:
        return module
    added = {name: function.with_attr("global_symbol", name) for name, function in _kernels(spec).items()}
    return tvm.IRModule({**dict(module.functions.items()), **added}, attrs=module.attrs)


def describe_roofline(spec: TargetSpec) -> dict[str, dict[str, object]]:
    """What the manifest says of the kernels: the shapes of their fp32 arguments, and the ``flops`` or ``bytes`` (read
    and written) of a call."""
    if spec.is_gpu:
        return {}
    shapes = {
        name: [[int(extent) for extent in parameter.ty.shape] for parameter in function.params]
        for name, function in _kernels(spec).items()
    }
    *_, product = shapes[_PEAK]
    source, target = shapes[_COPY]
    return {
        _PEAK: {"shapes": shapes[_PEAK], "flops": 2 * _DEPTH * math.prod(product)},
        _COPY: {"shapes": shapes[_COPY], "bytes": 4 * (math.prod(source) + math.prod(target))},
    }


def _kernels(spec: TargetSpec) -> dict[str, tvm.tirx.PrimFunc]:
    kernels = {_PEAK: _peak(spec), _COPY: _copy(spec)}
    return {name: kernel.with_attr("tirx.is_scheduled", True) for name, kernel in kernels.items()}


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
    return sch.mod["main"]


def _copy(spec: TargetSpec) -> tvm.tirx.PrimFunc:
    shape = (spec.threads, _COPIED_FLOATS // spec.threads)
    source = te.placeholder(shape, "float32", name="source")
    sch = Schedule(te.create_prim_func([source, te.compute(shape, lambda *i: source(*i), name="target")]))
    thread, position = sch.get_loops(sch.get_sblock("target"))
    sch.parallel(thread)
    sch.vectorize(sch.split(position, [None, 16])[1])
    return sch.mod["main"]
