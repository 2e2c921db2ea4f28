"""Targets: what code is generated for. This module is free of TVM, so that the web process can list them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path

from tuner.errors import TargetError

# LLVM's x86 micro-architectures, most capable first, with the /proc/cpuinfo flags that each one needs. Chosen by
# features, not by family and model: virtual machines often report the model of another generation.
_X86_LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    (
        "sapphirerapids",
        frozenset(["avx512_fp16", "avx512_bf16", "avx512_vnni", "avx512_vbmi2", "amx_tile", "amx_int8", "amx_bf16"]),
    ),
    ("znver4", frozenset(["avx512_bf16", "avx512_vnni", "avx512_vbmi2", "sse4a", "clzero"])),
    ("icelake-server", frozenset(["avx512_vnni", "avx512_vbmi2", "avx512_ifma", "vaes", "gfni", "avx512f"])),
    ("cascadelake", frozenset(["avx512_vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"])),
    ("skylake-avx512", frozenset(["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"])),
    ("x86-64-v3", frozenset(["avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"])),
    ("x86-64-v2", frozenset(["sse4_1", "sse4_2", "ssse3", "popcnt"])),
    ("x86-64", frozenset()),
)
_SHOWN_FEATURES = (
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_fp16",
    "amx_tile",
    "asimd",
    "asimddp",
    "sve",
)

TIMING_VERSION = 2
"""Latencies of another version of `tuner.measure.run_worker` are not comparable. 2: weights are not in the cache."""


@dataclass(frozen=True, kw_only=True)
class TargetSpec:
    """A named target.

    ``tvm`` is the TVM target as a JSON object (``kind``, ``mcpu``, ``mtriple``, ``num-cores``), ``triple`` the
    link triple, ``threads`` the worker threads that the module is tuned and run with (never TVM's default,
    which is half the cores on x86), ``device`` what a person calls the machine.
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

    def as_dict(self) -> dict[str, object]:
        """The JSON shape of ``GET /targets``."""
        return {
            "name": self.name,
            "description": self.description,
            "device": self.device,
            "tvm": self.tvm,
            "triple": self.triple,
            "threads": self.threads,
            "features": list(self.features),
            "vector_bits": self.vector_bits,
            "cache_bytes": self.cache_bytes,
            "fingerprint": self.fingerprint,
        }


@cache
def tvm_version() -> str:
    """The installed TVM's version, read from its metadata (TVM itself is not loaded)."""
    return version("apache-tvm")


def find_target(name: str) -> TargetSpec:
    """The target of that name; raises `TargetError` (``unknown_target``) with the names that exist."""
    targets = {spec.name: spec for spec in list_targets()}
    if name not in targets:
        raise TargetError(
            f"There is no target named {name!r}.",
            hint=f"Known targets: {', '.join(sorted(targets))}. Show them with: tessera targets list",
        )
    return targets[name]


def list_targets() -> list[TargetSpec]:
    """Every target known here, `host` first."""
    return [host_target()]


@cache
def host_target() -> TargetSpec:
    """This machine, detected: CPU name, features, usable cores (the affinity mask), caches."""
    flags, brand = _cpu_flags_and_brand()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    machine = platform.machine().lower()
    if machine in ("x86_64", "amd64"):
        mcpu = next(name for name, needed in _X86_LEVELS if needed <= flags)
        triple = "x86_64-linux-gnu"
        vector_bits = 512 if "avx512f" in flags else 256 if "avx2" in flags else 128
    elif machine in ("aarch64", "arm64"):
        mcpu, triple, vector_bits = "generic", "aarch64-linux-gnu", 128
    else:
        raise TargetError(f"This machine's architecture ({machine}) is not supported as host.", code="unsupported_host")
    return TargetSpec(
        name="host",
        description=f"This machine: {brand}, {cores} core{'s' if cores != 1 else ''}",
        device=brand,
        tvm={"kind": "llvm", "mcpu": mcpu, "num-cores": cores},
        triple=triple,
        threads=cores,
        features=tuple(name for name in _SHOWN_FEATURES if name in flags),
        vector_bits=vector_bits,
        cache_bytes=_cache_bytes(),
    )


def _cpu_flags_and_brand() -> tuple[frozenset[str], str]:
    flags: frozenset[str] = frozenset()
    brand = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return flags, brand
    for line in info.read_text(errors="replace").splitlines():
        key, _, value = line.partition(":")
        match key.strip():
            case "model name":
                brand = value.strip()
            case "flags" | "Features":
                return frozenset(value.split()), brand
    return flags, brand


def _cache_bytes() -> dict[str, int]:
    """Data cache sizes of core 0 by level (``l1``, ``l2``, ``l3``), from sysfs; absent levels are left out."""
    sizes: dict[str, int] = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (index / "type").read_text().strip() == "Instruction":
            continue
        text = (index / "size").read_text().strip()
        scale = {"K": 1024, "M": 1024**2}.get(text[-1], 1)
        sizes[f"l{(index / 'level').read_text().strip()}"] = int(text.rstrip("KM")) * scale
    return sizes
