"""Registering one architecture's intrinsics, in fresh processes: what is imported cannot be undone in this one."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import json, sys
from tvm.target import Target
from schedules.intrinsics import register_intrinsics

target = Target({target!r})
register_intrinsics(target)
register_intrinsics(target)
from tvm.s_tir import TensorIntrin, meta_schedule as ms
ms.TuneContext(target=target)
import tvm.s_tir.tensor_intrin
print(json.dumps({{
    "modules": sorted(name for name in sys.modules if name.startswith("tvm.s_tir.tensor_intrin.")),
    "registered": [name for name in {names!r} if TensorIntrin.get(name, allow_missing=True) is not None],
}}))
"""
NAMES = ("dot_16x4_vnni", "dot_4x4_i8i8s32_neon", "wmma_sync_16x16x16_f16f16f32")


def after_registering(target: dict[str, object]) -> dict[str, Any]:
    program = PROGRAM.format(target=target, names=NAMES)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.mark.parametrize(
    ("triple", "module", "registered"),
    [
        ("x86_64-linux-gnu", "x86", "dot_16x4_vnni"),
        ("aarch64-linux-gnu", "arm_cpu", "dot_4x4_i8i8s32_neon"),
    ],
)
def test_imports_the_architecture_and_nothing_else(triple: str, module: str, registered: str) -> None:
    result = after_registering({"kind": "llvm", "mtriple": triple, "num-cores": 2})
    assert result["registered"] == [registered]
    expected = {f"tvm.s_tir.tensor_intrin.{module}"}
    assert expected <= set(result["modules"]) <= {*expected, "tvm.s_tir.tensor_intrin.dot_product_common"}


def test_an_architecture_without_intrinsics_still_gets_the_package() -> None:
    result = after_registering({"kind": "llvm", "mtriple": "riscv64-linux-gnu", "num-cores": 2})
    assert result == {"modules": [], "registered": []}
