"""The lines of real functions: loops, what they run through, where buffers are and how large."""

from __future__ import annotations

from typing import Any

import tvm
from tvm.s_tir import Schedule

from schedules.windows.lower import lower
from tests.schedules import functions
from tests.schedules.building import as_module
from tests.schedules.windows.chains import inverted_residual, planned
from tuner.loop_nest import Line, loop_nest, main_script, parameters


def tiled_matmul() -> tvm.IRModule:
    """16×32×24, in tiles of 4 rows, the product of a tile in a buffer of its own."""
    sch = Schedule(as_module(functions.matmul_relu()))
    product, relu = sch.get_sblock("T_matmul_NN"), sch.get_sblock("compute")
    m, n = sch.get_loops(relu)
    outer, _ = sch.split(m, [4, 4])
    sch.parallel(outer)
    sch.vectorize(n)
    sch.annotate(outer, "pragma_auto_unroll_max_step", 64)
    sch.compute_at(product, outer)
    *_, k = sch.get_loops(product)
    _, unrolled = sch.split(k, [8, 3])
    sch.unroll(unrolled)
    return sch.mod


def loops(lines: list[Line]) -> list[tuple[Any, ...]]:
    return [
        (line["depth"], line["kind"], "·".join(line["of"]), line["extent"]) for line in lines if line["what"] == "loop"
    ]


def find(lines: list[Line], what: str) -> list[Line]:
    return [line for line in lines if line["what"] == what]


def test_loops_have_their_kind_and_what_they_run_through() -> None:
    lines = loop_nest(tiled_matmul())
    assert loops(lines) == [
        (0, "parallel", "m", 4),
        (1, "serial", "m", 4),
        (2, "serial", "n", 32),
        (3, "serial", "k", 8),
        (4, "unrolled", "k", 3),
        (1, "serial", "i0", 4),
        (2, "vectorized", "i1", 32),
    ]
    assert [line["unroll"] for line in find(lines, "loop")] == [64] + [None] * 6


def test_a_buffer_is_where_it_is_needed_and_as_large_as_a_tile() -> None:
    (buffer,) = find(loop_nest(tiled_matmul()), "buffer")
    assert (buffer["depth"], buffer["name"], buffer["shape"], buffer["bytes"]) == (1, "T_matmul_NN", [4, 32], 512)
    (whole,) = find(loop_nest(as_module(functions.matmul_relu())), "buffer")
    assert (whole["depth"], whole["shape"], whole["bytes"]) == (0, [16, 32], 2048)


def test_statements_name_what_they_read_and_write() -> None:
    product, relu = find(loop_nest(tiled_matmul()), "statement")
    assert (product["depth"], product["writes"], product["reads"]) == (5, ["T_matmul_NN"], ["A", "B"])
    assert (relu["writes"], relu["reads"]) == (["compute"], ["T_matmul_NN"])


def test_parameters_have_roles() -> None:
    roles = {each["name"]: (each["role"], each["bytes"]) for each in parameters(tiled_matmul())}
    assert roles == {"A": ("input", 1536), "B": ("input", 3072), "compute": ("output", 2048)}


def test_a_chain_has_its_rings_and_its_conditions() -> None:
    chain = inverted_residual(8, 8)
    mod = as_module(lower(chain, planned(chain, strips=2)))
    rings = {each["name"]: each["shape"] for each in parameters(mod) if each["role"] == "ring"}
    assert rings == {"ring0": [2, 3, 10, 24], "ring1": [2, 1, 8, 24]}
    lines = loop_nest(mod)
    assert loops(lines)[0] == (0, "parallel", "s", 2)
    rows = next(line for line in find(lines, "block") if line["name"] == "rows2")
    assert "vt >= 2" in rows["where"]
    sums = [line for line in find(lines, "buffer") if line["name"] == "sums"]
    assert [line["bytes"] for line in sums] == [768, 768, 256]


def test_loops_of_a_gpu_are_its_threads() -> None:
    sch = Schedule(as_module(functions.bias_relu()))
    sch.compute_inline(sch.get_sblock("added"))
    rows, columns = sch.get_loops(sch.get_sblock("out"))
    sch.bind(rows, "blockIdx.x")
    sch.bind(columns, "threadIdx.x")
    assert loops(loop_nest(sch.mod)) == [(0, "blockIdx.x", "i", 8), (1, "threadIdx.x", "j", 32)]


def test_the_script_is_without_the_type_of_its_integers() -> None:
    script = main_script(tiled_matmul())
    assert "T.parallel(4" in script
    assert "T.int64(" not in script
    assert "T.int32(" not in script
