"""Storages: never two tensors alive together in one, little more than what is alive at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schedules.memory.storages import ALIGNMENT_BYTES, Lifetime, live_bytes, share

STEPS = 12


@st.composite
def lifetimes(draw: st.DrawFn) -> Lifetime:
    first = draw(st.integers(0, STEPS - 1))
    return Lifetime(size_bytes=draw(st.integers(1, 4000)), first=first, last=draw(st.integers(first, STEPS - 1)))


@given(st.lists(lifetimes(), max_size=12))
def test_tensors_that_are_alive_together_share_nothing(tensors: list[Lifetime]) -> None:
    storages = share(tensors)
    for index, one in enumerate(tensors):
        assert storages.sizes[storages.storage_of[index]] >= one.size_bytes
        for other in tensors[:index]:
            if one.first <= other.last and other.first <= one.last:
                assert storages.storage_of[index] != storages.storage_of[tensors.index(other)] or other is one
    assert storages.total_bytes >= max(live_bytes(tensors, STEPS), default=0)
    assert storages.total_bytes <= sum(each.aligned_bytes for each in tensors)
    assert all(size % ALIGNMENT_BYTES == 0 for size in storages.sizes)
    assert share(tensors) == storages


def test_a_sequence_takes_two_storages() -> None:
    """Each tensor is read by the next function only: two alternate."""
    sizes = [640, 1280, 320, 1280, 640]
    tensors = [Lifetime(size_bytes=size, first=step, last=step + 1) for step, size in enumerate(sizes)]
    assert live_bytes(tensors, 6) == [640, 1920, 1600, 1600, 1920, 640]
    assert share(tensors).total_bytes == 1920


def test_largest_first_is_not_always_the_best_order() -> None:
    """Greedy by size alone would take 3 storages here."""
    tensors = [
        Lifetime(size_bytes=1024, first=0, last=0),
        Lifetime(size_bytes=960, first=2, last=2),
        Lifetime(size_bytes=896, first=0, last=1),
        Lifetime(size_bytes=832, first=1, last=2),
    ]
    assert share(tensors).total_bytes == 1984


def test_nothing_takes_nothing() -> None:
    assert share([]).total_bytes == 0
    assert live_bytes([], 3) == [0, 0, 0]
