"""Bytecode of our packages for confined processes, which may write none beside the sources."""

from __future__ import annotations

import compileall
import sys
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


@cache
def compile_packages() -> None:
    """Compile what changed since it was compiled last; in an installed wheel, and where we may not write, nothing."""
    if sys.dont_write_bytecode or _ROOT.name == "site-packages":
        return
    for name in ("tuner", "schedules"):
        compileall.compile_dir(_ROOT / name, quiet=2)
