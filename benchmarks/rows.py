"""Rows of long benchmarks: kept in a file as they are finished, so that a second call does only what is missing."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, TypeVar

Row = dict[str, Any]
Key = TypeVar("Key", bound=Hashable)

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


def measure_missing(
    path: Path | None,
    wanted: Mapping[Key, Callable[[], Row]],
    *,
    key_of: Callable[[Row], Key],
    failures: tuple[type[Exception], ...],
    show: Callable[[Row], str],
) -> tuple[list[Row], bool]:
    """All rows, those of the file first, then what is ``wanted`` and was not in it, kept and shown as it is finished;
    and whether every measurement succeeded: one that raises one of ``failures`` is told of and left out."""
    rows = read_rows(path)
    known = {key_of(row) for row in rows}
    complete = True
    for key, measure in wanted.items():
        if key in known:
            continue
        try:
            row = measure()
        except failures as error:
            print(f"{key}: {error}", file=sys.stderr, flush=True)
            complete = False
            continue
        keep_row(path, row)
        rows.append(row)
        print(show(row), file=sys.stderr, flush=True)
    return rows, complete


def provenance() -> Row:
    """``commit`` (marked when files were changed since) and ``machine`` of what is measured now."""
    from tuner.targets import host_target

    command = ["git", "describe", "--always", "--dirty=+changes", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    machine = f"{host_target().description}, Python {platform.python_version()}"
    return {"commit": done.stdout.strip(), "machine": machine}
