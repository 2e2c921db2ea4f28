"""Which half has what."""

from __future__ import annotations

import subprocess
import sys

from tests.service.conftest import ROOT

_HEAVY = {"tvm", "tvm_ffi", "onnx", "onnxruntime", "xgboost", "numpy"}
_OF_THE_SERVICE = {"service", "sqlalchemy", "fastapi", "cryptography"}


def loaded(statement: str) -> set[str]:
    """The top-level packages that are there after a statement."""
    code = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_trusted_half_loads_no_compiler() -> None:
    packages = loaded("import service.job_process")
    assert "service" in packages
    assert packages & _HEAVY == set()


def test_the_confined_half_knows_nothing_of_the_service() -> None:
    packages = loaded("import tuner.job, tuner.tune")
    assert "tvm" in packages
    assert packages & _OF_THE_SERVICE == set()
