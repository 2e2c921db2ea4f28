"""Rows of long benchmarks: kept in a file as they are finished, so that a second call does only what is missing."""

from __future__ import annotations

import json
import platform
import subprocess
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent


def read_rows(path: Path | None) -> list[Row]:
    """The rows of a file of JSON lines; none without a file."""
    if path is None or not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines()]


def keep_row(path: Path | None, row: Row) -> None:
    """Append a row to the file, if there is one."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def provenance() -> Row:
    """``commit`` (marked when files were changed since) and ``machine`` of what is measured now."""
    from tuner.targets import host_target

    command = ["git", "describe", "--always", "--dirty=+changes", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    machine = f"{host_target().description}, Python {platform.python_version()}"
    return {"commit": done.stdout.strip(), "machine": machine}
