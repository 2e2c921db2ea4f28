"""The README of a bundle: how to run this network there, from Python and from C++, with its own names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

_RUNTIME_SOURCES = "the targets tvm_runtime and tvm_ffi of its CMake project"
_DLPACK_KINDS = {"f": "kDLFloat", "i": "kDLInt", "u": "kDLUInt", "b": "kDLBool"}


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
        library=manifest["module"].replace(".tar", ".so"),
        module=manifest["module"],
        module_is="the network as object files"
        if manifest["module"] == "module.tar"
        else "the network: code and constants; needs the TVM runtime only",
        rows="\n".join(f"| {name} | {value} |" for name, value in _facts(manifest)),
        python_arguments="**{" + ", ".join(f"{spec['name']!r}: array" for spec in inputs) + "}",
        signature="\n".join(
            [f"- input {_described(spec)}" for spec in inputs] + [f"- output {_described(spec)}" for spec in outputs]
        ),
        cpp_inputs="\n".join(_cpp_input(number, spec) for number, spec in enumerate(inputs)),
        cpp_arguments=", ".join(f"input_{number}" for number in range(len(inputs))),
        cpp_outputs="\n".join(_cpp_output(number, spec, len(outputs)) for number, spec in enumerate(outputs)),
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


def _cpp_input(number: int, spec: Mapping[str, Any]) -> str:
    dtype = np.dtype(spec["dtype"])
    shape = ", ".join(map(str, spec["shape"]))
    kind = f"{{{_DLPACK_KINDS[dtype.kind]}, {dtype.itemsize * 8}, 1}}"
    return (
        f"  // {spec['name']}\n"
        f"  ffi::Tensor input_{number} =\n"
        f"      ffi::Tensor::FromNDAlloc(AlignedMemory(), ffi::Shape({{{shape}}}), {kind}, cpu);\n"
        f"  std::memset(input_{number}.data_ptr(), 0, input_{number}.numel() * {dtype.itemsize});"
    )


def _cpp_output(number: int, spec: Mapping[str, Any], count: int) -> str:
    value = "returned" if count == 1 else f"returned.cast<ffi::Array<ffi::Tensor>>()[{number}]"
    cast = f"{value}.cast<ffi::Tensor>()" if count == 1 else value
    return (
        f"  // {spec['name']}\n"
        f"  ffi::Tensor output_{number} = {cast};\n"
        f'  std::printf("output {number}: %lld values\\n", static_cast<long long>(output_{number}.numel()));'
    )
