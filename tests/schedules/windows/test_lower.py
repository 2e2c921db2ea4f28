"""Chains in rings: the numbers, how often each row is computed, how much is kept, and what is refused."""

from __future__ import annotations

import re
from itertools import product

import numpy as np
import pytest
import tvm
from tvm.ir import IRModule
from tvm.script import tirx as T
from tvm.tirx import PrimFunc

from schedules.windows.lower import columns_of, computed_macs, lower, ring_bytes, source_of
from schedules.windows.rows import Mode, RowPlan
from schedules.windows.stages import Chain, Kind, Picture
from schedules.windows.template import is_chain
from tests.schedules import building
from tests.schedules.windows.chains import Array, arrays, expected, inverted_residual, planned, stage


def run(function: PrimFunc | IRModule, values: dict[str, Array]) -> Array:
    """The output; ``values`` stay as they are."""
    mod = function if isinstance(function, IRModule) else IRModule({"main": function})
    tensors = {name: tvm.runtime.tensor(array.copy()) for name, array in values.items()}
    tvm.compile(mod, target=building.TARGET)["main"](*tensors.values())
    output: Array = tensors["y"].numpy()[0]
    return output


def box(*, kernel: int, stride: int = 1, dilation: int = 1, rows: int, columns: int) -> Chain:
    """A producer of single elements and a consumer of windows: Halide's example of storage folding."""
    source = Picture(rows=rows, columns=columns, channels=1)
    producer = stage(Kind.COPY, source)
    consumer = stage(Kind.AVERAGE_POOL, producer.output, kernel=kernel, stride=stride, dilation=dilation)
    return Chain(source=source, stages=(producer, consumer))


def stores(chain: Chain, plan: RowPlan) -> int:
    """How many elements the first stage stores when the function runs."""
    text = source_of(chain, plan)
    text = text.replace("def main(", 'def main(n: T.Buffer((1,), "int32"), ')
    store = re.search(r"^( *)ring0\[.*vw \+ \d+, vc\] = (?!T\.float32\(0\)$).*$", text, flags=re.MULTILINE)
    assert store is not None
    counted = f"{store.group()}\n{store.group(1)}n[0] = n[0] + 1"
    function = tvm.script.from_source(text.replace(store.group(), counted), extra_vars={"T": T})
    values, count = arrays(chain, plan), np.zeros(1, dtype=np.int32)
    tensors = [tvm.runtime.tensor(array) for array in (count, *values.values())]
    tvm.compile(IRModule({"main": function}), target=building.TARGET)["main"](*tensors)
    output = dict(zip(values, tensors[1:], strict=True))["y"].numpy()
    np.testing.assert_allclose(output[0], expected(chain, values), rtol=1e-5, atol=1e-5)
    return int(tensors[0].numpy()[0])


def test_storage_folding_of_halides_lesson() -> None:
    chain = box(kernel=2, rows=5, columns=5)
    rolled, again = planned(chain), planned(chain, modes=[Mode.RECOMPUTE])
    assert (chain.output.rows, chain.output.columns) == (4, 4)
    assert stores(chain, rolled) == 25
    assert stores(chain, again) == 40
    assert ring_bytes(chain, rolled) == 10 * 4


@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "rows_per_step"),
    list(product([3, 5, 7], [1, 2], [1, 2], [1, 3])),
)
def test_every_element_is_computed_once(kernel: int, stride: int, dilation: int, rows_per_step: int) -> None:
    chain = box(kernel=kernel, stride=stride, dilation=dilation, rows=23, columns=19)
    plan = planned(chain, rows_per_step=rows_per_step)
    reach = (kernel - 1) * dilation + 1
    assert plan.rings[0].rows == (rows_per_step - 1) * stride + reach
    assert stores(chain, plan) == ((chain.output.rows - 1) * stride + reach) * 19


def test_strips_compute_their_seams_twice() -> None:
    chain = box(kernel=3, rows=18, columns=7)
    assert stores(chain, planned(chain, strips=2)) == (18 + 2) * 7
    assert stores(chain, planned(chain, strips=4)) == (18 + 3 * 2) * 7


def test_tiles_compute_their_seams_twice_and_keep_narrow_rings() -> None:
    chain = box(kernel=3, rows=18, columns=8)
    halves, thirds = planned(chain, tiles=2), planned(chain, tiles=3)
    assert stores(chain, halves) == 18 * (5 + 5)
    assert stores(chain, thirds) == 18 * (4 + 4 + 4)
    assert [ring_bytes(chain, plan) for plan in (planned(chain), halves, thirds)] == [4 * 3 * n for n in (8, 5, 4)]


@pytest.mark.parametrize("tiles", [1, 2, 3])
def test_multiplications_of_tiles_are_counted_as_they_are_done(tiles: int) -> None:
    chain = inverted_residual(12, 12)
    wide, depthwise, narrow = (columns.computed for columns in columns_of(chain, planned(chain, tiles=tiles)))
    assert (depthwise, narrow) == (12 // tiles, 12 // tiles)
    per_row = tiles * (wide * 8 * 24 + depthwise * 9 * 24 + narrow * 24 * 8)
    assert computed_macs(chain, planned(chain, tiles=tiles)) == 12 * per_row


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("rows", "columns"), [(13, 11), (16, 16)])
def test_inverted_residuals_keep_a_few_rows(rows: int, columns: int, stride: int) -> None:
    chain = inverted_residual(rows, columns, stride=stride)
    plan = planned(chain)
    assert [ring.rows for ring in plan.rings] == [3, 1]
    assert ring_bytes(chain, plan) == 4 * 24 * (3 * columns_of(chain, plan)[0].kept + chain.output.columns)
    unfused = sum(
        each.macs(chain.read_by(index).channels) * each.output.rows * each.output.columns
        for index, each in enumerate(chain.stages)
    )
    assert computed_macs(chain, plan) == unfused
    assert computed_macs(chain, planned(chain, modes=[Mode.RECOMPUTE] * 2)) > 1.2 * unfused
    values = arrays(chain, plan)
    assert building.relative_error(run(lower(chain, plan), values), expected(chain, values)) < 1e-6


def test_functions_of_chains_are_recognized() -> None:
    chain = inverted_residual(6, 6)
    assert is_chain(IRModule({"main": lower(chain, planned(chain))}))


def test_a_first_stage_that_reads_padding_is_refused() -> None:
    source = Picture(rows=6, columns=6, channels=2)
    padded = stage(Kind.DEPTHWISE, source, kernel=3, padding=(1, 1))
    chain = Chain(source=source, stages=(padded, stage(Kind.MAX_POOL, padded.output, kernel=2)))
    with pytest.raises(ValueError, match="copy in front"):
        lower(chain, planned(chain))


@pytest.mark.parametrize("parts", [{"strips": 2}, {"tiles": 2}])
def test_a_mean_is_not_taken_in_parts(parts: dict[str, int]) -> None:
    source = Picture(rows=6, columns=6, channels=2)
    pooled = stage(Kind.MAX_POOL, source, kernel=2)
    chain = Chain(source=source, stages=(pooled, stage(Kind.MAX_POOL, pooled.output, kernel=2)), averages=True)
    with pytest.raises(ValueError, match="would be 2 means"):
        lower(chain, planned(chain, **parts))
