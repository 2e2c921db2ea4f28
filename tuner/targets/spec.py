"""What a target is. Free of TVM, as all of this package, so that the web process can list targets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from importlib.metadata import version
from typing import Literal

TIMING_VERSION = 2
"""Latencies of another version of `tuner.measure.run_worker` are not comparable. 2: weights are not in the cache."""

Module = Literal["module.so", "module.dylib", "module.tar"]
"""The file that a bundle has: a shared library of Linux or macOS, or object files to be linked elsewhere."""


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """A named target.

    ``tvm`` is the TVM target as a JSON object (``kind``, ``mcpu``, ``mtriple``, ``num-cores``; for a GPU ``kind``
    ``cuda``, ``arch``, its limits and its ``host``), ``triple`` the link triple, ``threads`` the worker threads that
    the module is tuned and run with (never TVM's default, which is half the cores on x86), ``device`` what a person
    calls the machine. ``features`` are what its processor must have, by Linux' names. ``has_runtime`` tells whether the
    TVM runtime can be installed there from PyPI.
    """

    name: str
    description: str
    device: str
    tvm: dict[str, object]
    triple: str
    threads: int
    features: tuple[str, ...] = ()
    vector_bits: int = 128
    cache_bytes: dict[str, int] = field(default_factory=dict)
    memory_bytes: int | None = None
    has_runtime: bool = True

    @classmethod
    def from_dict(cls, given: Mapping[str, object]) -> TargetSpec:
        """The inverse of `as_dict`; what else there is, such as a fingerprint, is left out."""
        known = {each.name for each in fields(cls)}
        values = {name: value for name, value in given.items() if name in known}
        return cls(**{**values, "features": tuple(values.get("features") or ())})  # type: ignore[arg-type]

    @property
    def fingerprint(self) -> str:
        """Identity of what was measured and how: target attributes, device, threads, TVM version, way of timing (16 hex
        digits)."""
        identity = {
            "tvm": self.tvm,
            "device": self.device,
            "threads": self.threads,
            "version": tvm_version(),
            "timing": TIMING_VERSION,
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def is_gpu(self) -> bool:
        """Whether the network's functions run on a GPU (by CUDA), and only launches on the processor of ``triple``."""
        return self.tvm.get("kind") == "cuda"

    @property
    def processor(self) -> str:
        """What code is generated for, by LLVM's or CUDA's name, with what it must have beside that."""
        features = self.tvm.get("mattr")
        named = [self.tvm.get("mcpu"), self.tvm.get("arch"), *(features if isinstance(features, list) else [])]
        return " ".join(str(name) for name in named if name) or "generic"

    @property
    def system(self) -> str:
        """The operating system in the triple: ``linux``, ``macos``, ``windows``, or what else stands there."""
        parts = self.triple.split("-")
        return next((name for name in ("linux", "macos", "windows") if name in parts), parts[1] if parts[1:] else "")

    @property
    def module(self) -> Module:
        """What a bundle for this target has: objects where there is no runtime to load a library, and for Windows,
        which needs the runtime's import library to link."""
        if not self.has_runtime or self.system not in ("linux", "macos"):
            return "module.tar"
        return "module.dylib" if self.system == "macos" else "module.so"

    def as_dict(self) -> dict[str, object]:
        """The JSON shape of ``GET /targets``, without what this machine can do for it."""
        return asdict(self) | {"features": list(self.features), "fingerprint": self.fingerprint}


@cache
def tvm_version() -> str:
    """The installed TVM's version, read from its metadata (TVM itself is not loaded)."""
    return version("apache-tvm")
