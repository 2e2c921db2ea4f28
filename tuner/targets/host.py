"""This machine as a target, detected, and what it can do for others."""

from __future__ import annotations

import os
import platform
from dataclasses import replace
from functools import cache
from pathlib import Path

from tuner.errors import TargetError
from tuner.targets.spec import TargetSpec

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


def can_run(spec: TargetSpec) -> bool:
    """Whether this machine runs code for a target: its triple, and every feature that the target's processor has. GPUs
    are not used here."""
    flags, _ = _cpu_flags_and_brand()
    return not spec.is_gpu and spec.triple == host_target().triple and set(spec.features) <= flags


def can_measure(spec: TargetSpec) -> bool:
    """Whether latencies here say anything about a target: its code runs here, with a core for each of its threads."""
    return can_run(spec) and spec.threads <= host_target().threads


def checked_on(spec: TargetSpec) -> TargetSpec:
    """What code for a target is built for to be checked here: the target itself where this machine can run it, else
    this machine, so that the same schedules are checked in its own code; those of a GPU, with its threads one after
    another."""
    if can_run(spec):
        return spec
    host = host_target()
    return host if spec.is_gpu else replace(host, threads=min(spec.threads, host.threads))


@cache
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
