"""Which tensors share memory: never two that are alive together. Integers only, no TVM.

Every storage is as large as its largest tensor, and tensors begin where their storage does: TVM's functions refuse
others. The least possible is the most that is alive in any step. Largest first, each into the smallest storage that is
free for it (*greedy by size* for shared objects: Pisarchyk and Lee, "Efficient memory management for deep neural net
inference", 2020), comes close; changes of that order at random come closer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT_BYTES = 64
"""Of every storage: what TVM's functions assume, and a cache line."""
_CHANGES = 400


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """``size_bytes`` from step ``first`` to step ``last``, both included."""

    size_bytes: int
    first: int
    last: int

    @property
    def aligned_bytes(self) -> int:
        return aligned(self.size_bytes)


@dataclass(frozen=True, kw_only=True)
class Storages:
    """The storage of each tensor, and the sizes of the storages in bytes."""

    storage_of: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def total_bytes(self) -> int:
        return sum(self.sizes)


def aligned(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES


def live_bytes(lifetimes: Sequence[Lifetime], steps: int) -> list[int]:
    """How much is alive in each step, in aligned bytes."""
    changes = [0] * (steps + 1)
    for each in lifetimes:
        changes[each.first] += each.aligned_bytes
        changes[each.last + 1] -= each.aligned_bytes
    live, alive = [], 0
    for change in changes[:steps]:
        alive += change
        live.append(alive)
    return live


def share(lifetimes: Sequence[Lifetime]) -> Storages:
    """Storages for all tensors, small in sum; the same ones for the same tensors."""
    least = max(live_bytes(lifetimes, max((each.last for each in lifetimes), default=0) + 1), default=0)
    order = sorted(range(len(lifetimes)), key=lambda index: (-lifetimes[index].size_bytes, lifetimes[index].first))
    best, rng = _in_order(lifetimes, order), random.Random(0)
    for _ in range(_CHANGES if len(order) > 1 else 0):
        if best.total_bytes == least:
            break
        changed = list(order)
        changed.insert(rng.randrange(len(order)), changed.pop(rng.randrange(len(order))))
        answer = _in_order(lifetimes, changed)
        if answer.total_bytes <= best.total_bytes:
            best, order = answer, changed
    return best


def _in_order(lifetimes: Sequence[Lifetime], order: Sequence[int]) -> Storages:
    """Each tensor into the storage that grows least for it, the smallest of those; a new one costs all of it."""
    storage_of, sizes, tenants = [0] * len(lifetimes), list[int](), list[list[Lifetime]]()
    for index in order:
        own = lifetimes[index]
        free = [
            storage
            for storage, others in enumerate(tenants)
            if all(other.last < own.first or own.last < other.first for other in others)
        ]
        grown = {storage: max(0, own.aligned_bytes - sizes[storage]) for storage in free}
        best = min(free, key=lambda storage: (grown[storage], sizes[storage]), default=None)
        if best is None:
            best = len(sizes)
            sizes.append(0)
            tenants.append([])
        sizes[best] = max(sizes[best], own.aligned_bytes)
        tenants[best].append(own)
        storage_of[index] = best
    return Storages(storage_of=tuple(storage_of), sizes=tuple(sizes))
