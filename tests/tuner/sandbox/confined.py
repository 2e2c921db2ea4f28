"""Confined programs of tests, run for real, without TVM."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tuner.sandbox import Mode
from tuner.sandbox.refusals import Refusals
from tuner.sandbox.start import Policy, start
from tuner.sandbox.strength import strength

MIB = 1024**2
confined = pytest.mark.skipif(not strength().is_enough, reason="this machine cannot confine processes")


def run(code: str, policy: Policy, mode: Mode = "required", *, refusals: Refusals | None = None) -> tuple[int, str]:
    """The exit code of a program, and what it printed."""
    command = [sys.executable, "-S", "-c", code]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    child = start(command, policy, mode=mode, refusals=refusals, **output)
    output, _ = child.communicate(timeout=60)
    return child.returncode, output.decode()
