"""Tessera as people use it: its command line in a process of its own, on a data directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


class TuningFailed(Exception):
    """``tessera tune`` gave no bundle; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a job gave."""

    job_id: str
    bundle: Path
    manifest: dict[str, Any]


def environment(data_dir: Path) -> dict[str, str]:
    """For a child that runs this checkout on that data directory, whatever server the caller usually talks to."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TESSERA_")}
    return {**inherited, "PYTHONPATH": str(ROOT), "TESSERA_DATA_DIR": str(data_dir)}


def tessera(*arguments: str, data_dir: Path) -> tuple[int, str]:
    """Run one command; returns the exit status and standard output. Its progress goes to our standard error."""
    command = [sys.executable, "-m", "service", *arguments]
    done = subprocess.run(command, env=environment(data_dir), stdout=subprocess.PIPE, text=True, check=False)
    return done.returncode, done.stdout


def tune(model: Path, out: Path, data_dir: Path, *options: str) -> Tuned:
    """``tessera tune``, the bundle into ``out``. Raises `TuningFailed`."""
    from tuner.bundle import read_manifest

    out.mkdir(parents=True, exist_ok=True)
    _, printed = tessera("tune", str(model), *options, "--out", str(out), "--json", data_dir=data_dir)
    try:
        answer: dict[str, Any] = json.loads(printed)
    except ValueError:
        raise TuningFailed(printed.strip()[-500:] or "no answer") from None
    if not answer["bundle"]:
        error = answer["job"]["error"] or {"code": answer["job"]["state"], "message": "no bundle"}
        raise TuningFailed(f"{error['code']}: {error['message']}")
    bundle = Path(answer["bundle"])
    return Tuned(job_id=answer["job"]["id"], bundle=bundle, manifest=read_manifest(bundle))
