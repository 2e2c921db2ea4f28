"""The tensor intrinsics of a target, without the cost of importing those of every other architecture.

``import tvm.s_tir.tensor_intrin`` parses the CUDA, ROCm, Metal, Hexagon, ARM and RISC-V intrinsics through TVMScript:
about 20 s of CPU. `TuneContext.__init__` and MetaSchedule's builder import that package only for its side effects, so
an empty package of the same name satisfies them.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

from tvm.target import Target

_PACKAGE = "tvm.s_tir.tensor_intrin"
_MODULES_BY_ARCHITECTURE = {"x86_64": "x86", "i386": "x86", "i686": "x86", "aarch64": "arm_cpu", "arm64": "arm_cpu"}
_MODULES_BY_KEY = {"arm_cpu": "arm_cpu", "x86": "x86"}


def register_intrinsics(target: Target) -> None:
    """Register the tensor intrinsics of one target's architecture, and keep everybody else's out of the process.

    Call it before a `TuneContext` is made, before MetaSchedule's `default_build`, and in every process that replays a
    tensorized trace. Idempotent. A target without intrinsics here (RISC-V, WebAssembly) gets the empty package, which
    the imports inside MetaSchedule need all the same. When something has already imported the real package, nothing
    is left to save and nothing is changed.
    """
    if _PACKAGE not in sys.modules:
        sys.modules[_PACKAGE] = _empty_package()
    module = _architecture_module(target)
    if module is not None:
        importlib.import_module(f"{_PACKAGE}.{module}")


def _architecture_module(target: Target) -> str | None:
    """The one file of the package that this target needs: by its triple, else by its keys, else by LLVM's host."""
    attributes = target.attrs
    triple = str(attributes["mtriple"]) if "mtriple" in attributes else ""
    if triple:
        return _MODULES_BY_ARCHITECTURE.get(triple.split("-", maxsplit=1)[0])
    for key in target.keys:
        if str(key) in _MODULES_BY_KEY:
            return _MODULES_BY_KEY[str(key)]
    if target.kind.name != "llvm":
        return None
    from tvm.target.codegen import llvm_get_system_triple

    return _MODULES_BY_ARCHITECTURE.get(llvm_get_system_triple().split("-", maxsplit=1)[0])


def _empty_package() -> ModuleType:
    """A package with the real one's search path, so that its files can be imported one by one, and no content."""
    parent = importlib.import_module("tvm.s_tir")
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.submodule_search_locations is None:
        raise ImportError(f"TVM has no package {_PACKAGE}: this version of Tessera needs TVM 0.27.")
    spec = ModuleSpec(_PACKAGE, loader=None, origin=found.origin, is_package=True)
    spec.submodule_search_locations = list(found.submodule_search_locations)
    package = ModuleType(_PACKAGE, "Emptied on purpose: see schedules.intrinsics.")
    package.__spec__ = spec
    package.__path__ = spec.submodule_search_locations
    parent.tensor_intrin = package  # type: ignore[attr-defined]
    return package
