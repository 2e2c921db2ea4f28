"""What candidates are run with: the same inputs, and weights that have left the cache."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tuner.measure.jobs import ArgumentSpec
from tuner.measure.run_worker import ArgumentSets, Inputs

MIB = 2**20
DATA, OUT = ArgumentSpec(shape=(1, 8), dtype="float32"), ArgumentSpec(shape=(1, 4), dtype="float32")


def weights(*shape: int, dtype: str = "float32") -> ArgumentSpec:
    return ArgumentSpec(shape=shape, dtype=dtype, is_weight=True)


def addresses(sets: ArgumentSets, argument: int) -> list[int]:
    return [np.from_dlpack(each[argument]).ctypes.data for each in sets.next(len(sets))]


def given(*specs: ArgumentSpec, inputs: Inputs | None = None, network_weight_bytes: int = 0) -> ArgumentSets:
    return (inputs or Inputs()).get(specs, network_weight_bytes=network_weight_bytes)


def test_weights_are_elsewhere_in_every_set_and_inputs_are_not() -> None:
    sets = given(DATA, weights(1024, 1024), OUT)
    assert len(sets) == 4  # at least 16 MiB, of 4 MiB each
    assert len(set(addresses(sets, 0))) == len(set(addresses(sets, 2))) == 1
    places = sorted(addresses(sets, 1))
    assert all(second - first >= 4 * MIB for first, second in itertools.pairwise(places))
    assert all(place % 64 == 0 for place in places)


@pytest.mark.parametrize(
    ("network_weight_bytes", "expected"), [(20 * MIB, 20), (1, 16), (40 * MIB, 40), (17 * MIB, 17)]
)
def test_there_are_as_many_weights_as_the_network_has(network_weight_bytes: int, expected: int) -> None:
    inputs = Inputs()
    given(DATA, weights(4), inputs=inputs, network_weight_bytes=30 * MIB)
    assert len(given(DATA, weights(512, 512), inputs=inputs, network_weight_bytes=network_weight_bytes)) == expected


def test_few_weights_are_spread_over_all_the_memory() -> None:
    places = sorted(addresses(given(DATA, weights(16), OUT), 1))
    assert len(places) == 256
    assert places[-1] - places[0] > 15 * MIB


def test_sets_come_in_turns_and_the_next_candidate_begins_elsewhere() -> None:
    inputs = Inputs()
    first = given(DATA, weights(1024), inputs=inputs)
    second = given(DATA, weights(32, 32), inputs=inputs)
    order = addresses(first, 1)
    assert addresses(first, 1) == order
    assert addresses(second, 1) != order
    assert sorted(addresses(second, 1)) == sorted(order)


@pytest.mark.parametrize(
    "spec", [weights(3, 3, dtype="int64"), weights(5 * MIB), weights(0)], ids=["integers", "larger than all", "empty"]
)
def test_weights_that_do_not_fit_are_made_once(spec: ArgumentSpec) -> None:
    inputs = Inputs()
    sets = given(DATA, spec, OUT, inputs=inputs)
    assert len(sets) == 1
    (arguments,) = sets.next(1)
    assert arguments[1].shape == spec.shape
    assert str(arguments[1].dtype) == spec.dtype


def test_values_differ_within_a_weight_and_functions_without_weights_have_one_set() -> None:
    (arguments,) = given(DATA, weights(64, 64)).next(1)
    assert np.unique(arguments[1].numpy()).size > 4000
    assert len(given(DATA, OUT)) == 1
