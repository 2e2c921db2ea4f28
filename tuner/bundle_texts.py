"""What a bundle says of itself: how to run this network there, from Python, from C++ and in a container."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.resources import files
from string import Template
from typing import Any

_RUNTIME_SOURCES = "the targets tvm_runtime and tvm_ffi of its CMake project"
# The platforms of container images, by the start of the link triple.
_PLATFORMS = {"x86_64-linux": "linux/amd64", "aarch64-linux": "linux/arm64"}


def render_readme(manifest: Mapping[str, Any]) -> str:
    """The README's text, from a complete manifest."""
    inputs, outputs = manifest["inputs"], manifest["outputs"]
    template = Template((files("tuner.bundle_files") / "README.md.in").read_text(encoding="utf-8"))
    return template.substitute(
        model=manifest["model"]["name"],
        target=manifest["target"]["name"],
        device=manifest["target"]["device"],
        threads=manifest["threads"],
        tvm_version=manifest["versions"]["apache-tvm"],
        link=_link(manifest),
        module=manifest["module"],
        module_is="the network as object files"
        if manifest["module"] == "module.tar"
        else "the network: code and constants; needs the TVM runtime only",
        rows="\n".join(f"| {name} | {value} |" for name, value in _facts(manifest)),
        python_arguments="**{" + ", ".join(f"{spec['name']!r}: array" for spec in inputs) + "}",
        memory=_memory(manifest),
        container=_container(manifest),
        signature="\n".join(
            [f"- input {_described(spec)}" for spec in inputs] + [f"- output {_described(spec)}" for spec in outputs]
        ),
    )


def render_dockerfile(manifest: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """A Dockerfile for the device, which copies the files of these names; None where no image can have the runtime."""
    target = manifest["target"]
    platform = next((image for start, image in _PLATFORMS.items() if target["triple"].startswith(start)), None)
    if platform is None or not target.get("has_runtime", True):
        return None
    template = Template((files("tuner.bundle_files") / "Dockerfile.in").read_text(encoding="utf-8"))
    return template.substitute(
        platform=platform, files=" ".join(sorted(names)), threads=manifest["threads"], options=_docker_options(manifest)
    )


def _link(manifest: Mapping[str, Any]) -> str:
    """How object files become a library; empty where the bundle has one."""
    if manifest["module"] != "module.tar":
        return ""
    target = manifest["target"]
    runtime = (
        "The TVM runtime is on PyPI for this system; its import libraries are not."
        if target.get("has_runtime", True)
        else f"There is no TVM runtime on PyPI for this system: build it from TVM's sources, {_RUNTIME_SOURCES}."
    )
    if "windows" in target["triple"]:
        command = "lld-link /dll /noentry /out:module.dll 0.o 1.o tvm_runtime.lib tvm_ffi.lib msvcrt.lib"
    else:
        command = f"zig cc -target {target['triple']} -shared -fPIC -o module.so *.o -lm"
    return (
        "## Link it\n\n"
        f"`module.tar` holds object files for `{target['triple']}`. {runtime} Any linker for that system will do:\n\n"
        f"```\ntar xf module.tar\n{command}\n```\n\n"
    )


def _memory(manifest: Mapping[str, Any]) -> str:
    """What a run needs beside the weights and its inputs, in a sentence; empty where that is not known."""
    memory = manifest.get("memory") or {}
    peak = memory.get("measured_peak_bytes") or memory.get("planned_peak_bytes")
    return f"A run allocates {peak:,} bytes beside weights and inputs, and keeps them for the next one." if peak else ""


def _container(manifest: Mapping[str, Any]) -> str:
    """How to run it in a container; empty where there are no images for the device."""
    if render_dockerfile(manifest, ()) is None:
        return ""
    command = f"docker build -t network . && docker run --rm{_docker_options(manifest)} network"
    return f"## Use it in a container\n\n```\n{command}\n```\n\n"


def _docker_options(manifest: Mapping[str, Any]) -> str:
    return " --gpus all" if manifest["target"]["tvm"].get("kind") == "cuda" else ""


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("outcome", str(manifest["outcome"]).replace("_", " "))]
    for key, name in (("latency", "latency"), ("baseline", "untuned"), ("onnxruntime", "ONNX Runtime")):
        measured = manifest.get(key)
        if measured:
            facts.append((name, f"{measured['median_us']:.1f} ± {measured['spread_us']:.1f} µs"))
    numerics = manifest["numerics"]
    error = f"{numerics['max_rel_error']:.1e} on {numerics['samples']} samples"
    if numerics.get("checked_on", manifest["target"]["name"]) != manifest["target"]["name"]:
        error += ", by the same schedules on the machine that built it; `run.py` checks it here"
    facts.append(("largest relative error", error))
    facts.append(("seed", str(manifest["seed"])))
    return facts


def _described(spec: Mapping[str, Any]) -> str:
    shape = " × ".join(map(str, spec["shape"])) or "a scalar"
    return f"`{spec['name']}`: {spec['dtype']}, {shape}"
