"""The README of a bundle: how to run this network there, from Python and from C++, with its own names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

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
        rows="\n".join(f"| {name} | {value} |" for name, value in _facts(manifest)),
        python_arguments="**{" + ", ".join(f"{spec['name']!r}: array" for spec in inputs) + "}",
        signature="\n".join(
            [f"- input {_described(spec)}" for spec in inputs] + [f"- output {_described(spec)}" for spec in outputs]
        ),
        cpp_inputs="\n".join(_cpp_input(number, spec) for number, spec in enumerate(inputs)),
        cpp_arguments=", ".join(f"input_{number}" for number in range(len(inputs))),
        cpp_outputs="\n".join(_cpp_output(number, spec, len(outputs)) for number, spec in enumerate(outputs)),
    )


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [("outcome", str(manifest["outcome"]).replace("_", " "))]
    for key, name in (("latency", "latency"), ("baseline", "untuned"), ("onnxruntime", "ONNX Runtime")):
        measured = manifest.get(key)
        if measured:
            facts.append((name, f"{measured['median_us']:.1f} ± {measured['spread_us']:.1f} µs"))
    numerics = manifest["numerics"]
    facts.append(("largest relative error", f"{numerics['max_rel_error']:.1e} on {numerics['samples']} samples"))
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
