"""The most memory that native code holds at a time, by the books of glibc's allocator.

The resident size of the process would not tell: it has Python, TVM and the weights in it, and never shrinks.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import re
import sys
import tempfile
from collections.abc import Callable

_M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -3, -4, -8
_SMALLEST_BYTES = 4096
_LARGEST_BYTES = 2**30
_MOST_BLOCKS = 2**20


class _Books(ctypes.Structure):
    """glibc's ``struct mallinfo2``: ``hblks`` mappings of ``hblkhd`` bytes now."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def growth_bytes(run: Callable[[], object]) -> int | None:
    """By how much the memory in blocks of 4 KiB and more grows at most while ``run`` runs; None without glibc.

    From here on every such block is a mapping of its own, which is slow: the process is not for timing any more. glibc
    keeps the highest number and the highest sum of mappings ever; before the run all free blocks of the heap are taken,
    so that nothing is served from there, and both are raised to their maximum, so that whatever the run adds shows.
    Mappings are whole pages: half a page of each, on average, was not asked for, and is not counted.
    """
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_stats") or not hasattr(library, "mallinfo2"):
        return None
    # What is garbage already goes back to the heap before its free blocks are taken, not while the run needs some.
    gc.collect()
    gc.disable()
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]
    library.mallinfo2.restype = _Books
    for option, value in ((_M_ARENA_MAX, 1), (_M_MMAP_THRESHOLD, _SMALLEST_BYTES), (_M_MMAP_MAX, _MOST_BLOCKS)):
        library.mallopt(option, value)
    taken = _take_free_blocks(library)
    most_mappings, most_bytes = _most_mapped(library)
    for _ in range(most_mappings - library.mallinfo2().hblks):
        taken.append(library.malloc(_SMALLEST_BYTES))
    missing = most_bytes - library.mallinfo2().hblkhd
    if missing >= _SMALLEST_BYTES:
        taken.append(library.malloc(missing))
    before = library.mallinfo2()
    try:
        run()
        most_mappings, most_bytes = _most_mapped(library)
    finally:
        gc.enable()
        for block in taken:
            library.free(block)
    mappings, mapped = max(0, most_mappings - before.hblks), max(0, most_bytes - before.hblkhd)
    return max(0, mapped - mappings * mmap.PAGESIZE // 2)


def _take_free_blocks(library: ctypes.CDLL) -> list[int]:
    """Allocate what lies free in the heap, largest blocks first, until every allocation of a size is a mapping."""
    taken, size = list[int](), _LARGEST_BYTES
    while size >= _SMALLEST_BYTES:
        before = library.mallinfo2().hblkhd
        block = library.malloc(size)
        after = library.mallinfo2().hblkhd
        if block and after - before < size:
            taken.append(block)
        else:
            library.free(block)
            size //= 2
    return taken


def _most_mapped(library: ctypes.CDLL) -> tuple[int, int]:
    """The highest number of mappings so far, and of mapped bytes. ``malloc_stats`` prints them to standard error,
    nothing else tells."""
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
    mappings, most = (re.search(rf"max mmap {what}\s*=\s*(\d+)", text) for what in ("regions", "bytes"))
    if mappings is None or most is None:
        raise OSError(f"malloc_stats printed {text[:200]!r}")
    return int(mappings.group(1)), int(most.group(1))
