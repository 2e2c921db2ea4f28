"""The most memory that native code holds at a time, by the books of glibc's allocator.

The resident size of the process would not tell: it has Python, TVM and the weights in it, and never shrinks.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import tempfile
from collections.abc import Callable

_M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -3, -4, -8
_SMALLEST_BYTES = 4096
_LARGEST_BYTES = 2**30
_MOST_BLOCKS = 2**20


def growth_bytes(run: Callable[[], object]) -> int | None:
    """By how much the memory in blocks of 4 KiB and more grows at most while ``run`` runs; None without glibc.

    From here on every such block is a mapping of its own, which is slow: the process is not for timing any more. glibc
    keeps the highest sum of mappings ever; before the run all free blocks of the heap are taken, so that nothing is
    served from there, and the sum is raised to that maximum, so that whatever the run adds shows.
    """
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_stats"):
        return None
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _SMALLEST_BYTES), (_M_MMAP_MAX, _MOST_BLOCKS)):
        library.mallopt(option, value)
    taken = _take_free_blocks(library)
    now, most = _mapped_bytes(library)
    if most - now >= _SMALLEST_BYTES:
        taken.append(library.malloc(most - now))
    before, _ = _mapped_bytes(library)
    try:
        run()
        _, most = _mapped_bytes(library)
    finally:
        for block in taken:
            library.free(block)
    return max(0, most - before)


def _take_free_blocks(library: ctypes.CDLL) -> list[int]:
    """Allocate what lies free in the heap, largest blocks first, until every allocation of a size is a mapping."""
    taken, size = list[int](), _LARGEST_BYTES
    while size >= _SMALLEST_BYTES:
        before, _ = _mapped_bytes(library)
        block = library.malloc(size)
        after, _ = _mapped_bytes(library)
        if block and after - before < size:
            taken.append(block)
        else:
            library.free(block)
            size //= 2
    return taken


def _mapped_bytes(library: ctypes.CDLL) -> tuple[int, int]:
    """How much is mapped now, and at most so far. ``malloc_stats`` prints it to standard error, nothing else tells."""
    with tempfile.TemporaryFile() as printed:
        sys.stderr.flush()
        kept = os.dup(2)
        try:
            os.dup2(printed.fileno(), 2)
            library.malloc_stats()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        printed.seek(0)
        text = printed.read().decode(errors="replace")
    # The last "in use bytes" is the sum over all heaps and the mapped blocks; heaps report theirs before.
    in_use = [int(each) for each in re.findall(r"in use bytes\s*=\s*(\d+)", text)]
    most = re.search(r"max mmap bytes\s*=\s*(\d+)", text)
    if most is None or not in_use:
        raise OSError(f"malloc_stats printed {text[:200]!r}")
    return in_use[-1] - sum(in_use[:-1]), int(most.group(1))
