"""What candidates are run with: the same inputs, and weights that have left the cache."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tuner.measure.jobs import ArgumentSpec
from tuner.measure.run_worker import ArgumentSets, Inputs

DATA, OUT = ArgumentSpec(shape=(1, 8), dtype="float32"), ArgumentSpec(shape=(1, 4), dtype="float32")


def weights(*shape: int, dtype: str = "float32") -> ArgumentSpec:
    return ArgumentSpec(shape=shape, dtype=dtype, is_weight=True)


def addresses(sets: ArgumentSets, argument: int) -> list[int]:
    return [np.from_dlpack(each[argument]).ctypes.data for each in sets.next(len(sets))]


def test_weights_are_elsewhere_in_every_set_and_inputs_are_not() -> None:
    sets = Inputs(weight_bytes=2**20).get((DATA, weights(64, 1024), OUT))
    assert len(sets) == 4  # a mebibyte of 256 KiB each
    assert len(set(addresses(sets, 0))) == len(set(addresses(sets, 2))) == 1
    places = sorted(addresses(sets, 1))
    assert all(second - first >= 64 * 1024 * 4 for first, second in itertools.pairwise(places))
    assert all(place % 64 == 0 for place in places)


def test_few_weights_are_spread_over_all_the_memory() -> None:
    places = sorted(addresses(Inputs(weight_bytes=8 * 2**20).get((DATA, weights(16), OUT)), 1))
    assert len(places) == 256
    assert places[-1] - places[0] > 7 * 2**20


def test_sets_come_in_turns_and_the_next_candidate_begins_elsewhere() -> None:
    inputs = Inputs(weight_bytes=2**20)
    first, second = inputs.get((DATA, weights(1024))), inputs.get((DATA, weights(32, 32)))
    order = addresses(first, 1)
    assert addresses(first, 1) == order
    assert addresses(second, 1) != order
    assert sorted(addresses(second, 1)) == sorted(order)


@pytest.mark.parametrize(
    "spec", [weights(3, 3, dtype="int64"), weights(2**19), weights(0)], ids=["integers", "larger than all", "empty"]
)
def test_weights_that_do_not_fit_are_made_once(spec: ArgumentSpec) -> None:
    inputs = Inputs(weight_bytes=2**20)
    assert len(inputs.get((DATA, spec, OUT))) == 1
    (arguments,) = inputs.get((DATA, spec, OUT)).next(1)
    assert arguments[1].shape == spec.shape
    assert str(arguments[1].dtype) == spec.dtype


def test_values_differ_within_a_weight_and_functions_without_weights_have_one_set() -> None:
    inputs = Inputs(weight_bytes=2**20)
    (arguments,) = inputs.get((DATA, weights(64, 64))).next(1)
    assert np.unique(arguments[1].numpy()).size > 4000
    assert len(inputs.get((DATA, OUT))) == 1
