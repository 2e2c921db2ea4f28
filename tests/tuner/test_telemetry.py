"""Nothing leaves the machine: ONNX Runtime's own reporting is off in every process that has the tuner."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files_left_by(code: str, folder: Path) -> list[str]:
    """What a process that is asked to report writes into its temporary directory."""
    folder.mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    environment |= {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    return [path.name for path in folder.iterdir()]


def test_onnxruntime_does_not_start_reporting(tmp_path: Path) -> None:
    """It keeps a session's identifier in the temporary directory as soon as it reports."""
    assert files_left_by("import tuner, onnxruntime", tmp_path / "ours") == []
    assert files_left_by("import tuner.contender, onnxruntime", tmp_path / "contender") == []
