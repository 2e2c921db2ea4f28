"""Space on a disk. What fails where none is left says nothing about what was tried there."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

# What the operating system says then.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
# With less than this a linker may fail for its want: libraries of candidates and their object files are well below.
_NO_SPACE_BYTES = 16 * 1024**2


def free_bytes(folder: Path) -> int:
    """What is free on the disk where the folder lies, or would be made."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def is_full(folder: Path) -> bool:
    """Whether so little is left that what fails there may have failed for it."""
    return free_bytes(folder) < _NO_SPACE_BYTES


def had_no_space(error: BaseException | None) -> bool:
    """Whether it is the operating system's error, or what it came from was."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            return True
        error = error.__cause__ or error.__context__
    return False
