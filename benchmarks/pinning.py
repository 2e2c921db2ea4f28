"""Fewer cores than the machine has, for a process tree: what the host target's threads are read from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from tuner.targets import host_target


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Keep this thread, and every process that it starts meanwhile, on the last ``count`` of its cores.

    The last ones, because interrupts are mostly served by the first; `host_target` has as many threads meanwhile. Ends
    the program when there are not as many.
    """
    allowed = os.sched_getaffinity(0)
    if count > len(allowed):
        raise SystemExit(f"{count} threads were asked for, and this process may use {len(allowed)} cores.")
    os.sched_setaffinity(0, sorted(allowed)[-count:])
    host_target.cache_clear()
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
        host_target.cache_clear()
