"""The bundle: the archive that a person deploys. Written whole or not at all, and the same bytes every time."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import metadata, version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, get_args

from tuner.bundle_texts import render_dockerfile, render_readme
from tuner.errors import TesseraError
from tuner.targets import TargetSpec, can_run
from tuner.targets.spec import Module

if TYPE_CHECKING:
    from tuner.network_process import Sample

BUNDLE_FORMAT = 1
_MODULES: tuple[str, ...] = get_args(Module)
_FILES = ("README.md", "manifest.json", "records.json", "requirements.txt", "run.py", "samples.npz")
_SBOM = "sbom.json"
# Not in bundles of earlier versions; a Dockerfile only where there are images and a runtime for the device.
_LATER_FILES = (_SBOM, "CMakeLists.txt", "Dockerfile", "run.cc")
MEMBERS = frozenset({*_FILES, *_LATER_FILES, *_MODULES})
"""What a bundle may hold."""

# What the runtime imports, with its own dependencies; nothing else has to be on the device.
_RUNTIME_PACKAGES = ("apache-tvm", "apache-tvm-ffi", "ml-dtypes", "numpy", "typing-extensions")

RUNTIME_MODULES = ("tvm", "tvm_ffi", "numpy")
"""What ``run.py`` imports of them."""

# What a network on a GPU needs beside them: TVM's part for CUDA loads this version's libraries.
_CUDA_PACKAGES = {"nvidia-cuda-runtime": "13.0.96"}
_CUDA_LICENSE = "LicenseRef-NVIDIA-Proprietary"

# Weights hardly compress: 574 MB take 9 s at level 1, which already finds constant weights, and 30 s at level 6.
_LARGE_MODULE_BYTES = 32 * 1024**2
_RUN_TIMEOUT_S = 900
_NAME_BYTES = 150


class BundleError(TesseraError):
    """The file is not a bundle, or was changed."""

    code = "bundle_invalid"
    hint = "Download the bundle again and compare its SHA-256 with the one that the service shows."


@dataclass(frozen=True, kw_only=True)
class BundleCheck:
    """What `verify_bundle` found; ``result`` is the JSON that the bundle's own ``run.py`` printed, if it ran, else
    ``not_run`` says why not: the module is for other machines, or what it needs is not installed on this one."""

    ok: bool
    problems: tuple[str, ...]
    manifest: dict[str, Any]
    result: dict[str, Any] | None
    not_run: str | None = None

    def as_dict(self) -> dict[str, object]:
        return {"ok": self.ok, "problems": list(self.problems), "result": self.result, "not_run": self.not_run}


def bundle_name(model_name: str, target_name: str) -> str:
    """``{model}-{target}.tar.gz``, safe as a file name everywhere."""
    stem = PurePosixPath(model_name.replace("\\", "/")).name.removesuffix(".onnx")
    safe = "".join(character if character.isalnum() or character in "._-" else "_" for character in stem).strip(".")
    # File systems take 255 bytes; letters of other scripts have up to four.
    short = safe.encode()[:_NAME_BYTES].decode(errors="ignore")
    return f"{short or 'model'}-{target_name}.tar.gz"


def write_bundle(
    *,
    path: Path,
    module: Path,
    manifest: Mapping[str, Any],
    samples: Sequence[Sample],
    reference: Sequence[Sample],
    records: Sequence[Mapping[str, Any]],
    workloads: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write the archive and return its manifest, completed by versions, sizes and the SHA-256 of every file.

    ``manifest`` must have ``model`` (name, sha256), ``target`` (name, device, …), ``module`` (what the module is
    called there: `TargetSpec.module`), ``threads``, ``inputs`` and ``outputs`` (name, shape, dtype), ``numerics``,
    ``outcome``, ``seed``; ``latency``, ``baseline`` and ``onnxruntime`` where they were measured, and whatever else is
    known. The same arguments give the same bytes.
    """
    on_gpu = target_of(manifest).is_gpu
    contents: dict[str, bytes] = {
        "samples.npz": _samples_npz(samples, reference),
        "records.json": _json({"format": 1, "workloads": list(workloads), "records": list(records)}),
        **{name: (files("tuner.bundle_files") / name).read_bytes() for name in _programs(on_gpu=on_gpu)},
        "requirements.txt": requirements(on_gpu=on_gpu).encode(),
        _SBOM: _json(_software_bill(on_gpu=on_gpu)),
    }
    complete: dict[str, Any] = {
        "format": BUNDLE_FORMAT,
        **manifest,
        "versions": _runtime_versions(on_gpu=on_gpu),
        "spread": "median absolute deviation of single runs",
    }
    contents["README.md"] = render_readme(complete).encode()
    if (dockerfile := render_dockerfile(complete, [*contents, complete["module"], "manifest.json"])) is not None:
        contents["Dockerfile"] = dockerfile.encode()
    complete["files"] = {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)} for name, data in contents.items()
    }
    complete["files"][complete["module"]] = {"sha256": _sha256(module), "size_bytes": module.stat().st_size}
    complete["files"] = dict(sorted(complete["files"].items()))
    contents["manifest.json"] = _json(complete)
    _write_archive(path, contents, module, name=complete["module"])
    return complete


def bundle_files(manifest: Mapping[str, Any]) -> list[str]:
    """The files of a bundle, by its manifest."""
    later = [name for name in _LATER_FILES if name in manifest["files"]]
    return sorted([*_FILES, manifest.get("module", "module.so"), *later])


def requirements(*, on_gpu: bool = False) -> str:
    """The pinned packages that a device needs, as installed here."""
    return "".join(f"{name}=={number}\n" for name, number in _runtime_versions(on_gpu=on_gpu).items())


def _runtime_versions(*, on_gpu: bool) -> dict[str, str]:
    return {name: version(name) for name in _RUNTIME_PACKAGES} | (_CUDA_PACKAGES if on_gpu else {})


def _programs(*, on_gpu: bool) -> tuple[str, ...]:
    """The programs of a bundle; the one in C++ is for CPUs."""
    return ("run.py",) if on_gpu else ("run.py", "run.cc", "CMakeLists.txt")


def _software_bill(*, on_gpu: bool) -> dict[str, object]:
    """What runs on the device, in CycloneDX's JSON: the packages of `requirements`, with their licenses."""
    components = []
    for name, number in _runtime_versions(on_gpu=on_gpu).items():
        license_text = _CUDA_LICENSE
        if name not in _CUDA_PACKAGES:
            about = metadata(name)
            license_text = next(iter(about.get_all("License-Expression") or about.get_all("License") or []), "")
        component: dict[str, object] = {
            "type": "library",
            "name": name,
            "version": number,
            "purl": f"pkg:pypi/{name}@{number}",
        }
        if license_text and "\n" not in license_text:
            component["licenses"] = [{"license": {"name": license_text}}]
        components.append(component)
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": components}


def read_manifest(bundle: Path) -> dict[str, Any]:
    """The manifest alone, without unpacking; raises `BundleError`."""
    try:
        with tarfile.open(bundle, "r:gz") as archive:
            member = archive.extractfile("manifest.json")
            manifest = json.load(member) if member else None
    except (tarfile.TarError, OSError, EOFError, KeyError, ValueError) as error:
        raise BundleError(f"{bundle.name} is not a readable bundle: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != BUNDLE_FORMAT:
        raise BundleError(f"{bundle.name} has no manifest of format {BUNDLE_FORMAT}.")
    return manifest


def verify_bundle(bundle: Path, *, benchmark: bool = False) -> BundleCheck:
    """Unpack a bundle into a temporary directory, compare every SHA-256, and run its ``run.py`` in a child process.

    Nothing of a bundle whose files were changed is run. Raises `BundleError` when it cannot be read at all.
    """
    manifest = read_manifest(bundle)
    with tempfile.TemporaryDirectory(prefix="bundle-") as directory:
        folder = Path(directory)
        unpack_bundle(bundle, folder)
        problems = _file_problems(folder, manifest)
        why_not = None if problems else _why_not_here(manifest)
        if problems or why_not:
            return BundleCheck(
                ok=not problems, problems=tuple(problems), manifest=manifest, result=None, not_run=why_not
            )
        command = [sys.executable, "run.py", "--json", *(["--benchmark"] if benchmark else [])]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_RUN_TIMEOUT_S, check=False
        )
    try:
        result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        problems = [f"run.py ended with status {done.returncode}: {done.stderr.strip()[-500:]}"]
        return BundleCheck(ok=False, problems=tuple(problems), manifest=manifest, result=None)
    return BundleCheck(
        ok=bool(result["ok"]) and done.returncode == 0,
        problems=tuple(result["problems"]),
        manifest=manifest,
        result=result,
    )


def target_of(manifest: Mapping[str, Any]) -> TargetSpec:
    """What a bundle is for; raises `BundleError` for a target that is none."""
    try:
        return TargetSpec.from_dict(manifest["target"])
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleError("The manifest does not describe a target.") from error


def _why_not_here(manifest: Mapping[str, Any]) -> str | None:
    """Why this machine cannot run a bundle's module; None where it can."""
    target = target_of(manifest)
    if not can_run(target) or manifest.get("module") == "module.tar":
        return f"It is for {target.device}"
    missing = [module for module in RUNTIME_MODULES if find_spec(module) is None]
    return f"What its requirements.txt names is not installed here ({missing[0]})" if missing else None


def unpack_bundle(bundle: Path, folder: Path) -> None:
    """Unpack the known files of a bundle, and only plain files; raises `BundleError`."""
    try:
        with tarfile.open(bundle, "r:gz") as archive:
            for member in archive:
                if member.name not in MEMBERS or not member.isreg():
                    raise BundleError(f"The bundle holds {member.name!r}, which does not belong there.")
                source = archive.extractfile(member)
                assert source is not None  # a plain file has content
                with source, (folder / member.name).open("wb") as target:
                    shutil.copyfileobj(source, target)
                (folder / member.name).chmod(0o755 if member.mode & 0o100 else 0o644)
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BundleError(f"{bundle.name} cannot be unpacked: {error}") from error


def _file_problems(folder: Path, manifest: Mapping[str, Any]) -> list[str]:
    known = bundle_files(manifest)
    problems = [f"{path.name} is not in the manifest" for path in sorted(folder.iterdir()) if path.name not in known]
    for name in known:
        path = folder / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif name != "manifest.json" and manifest["files"].get(name, {}).get("sha256") != _sha256(path):
            problems.append(f"{name} was changed: its SHA-256 is not the manifest's")
    return problems


def _samples_npz(samples: Sequence[Sample], reference: Sequence[Sample]) -> bytes:
    """Arrays ``input.NAME`` and ``output.NAME`` with a leading sample axis; ``np.savez`` writes constant dates."""
    import numpy as np  # those who only read bundles may not have it

    arrays = {f"input.{name}": np.stack([sample[name] for sample in samples]) for name in samples[0]}
    arrays |= {f"output.{name}": np.stack([sample[name] for sample in reference]) for name in reference[0]}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _write_archive(path: Path, contents: Mapping[str, bytes], module: Path, *, name: str) -> None:
    level = 1 if module.stat().st_size > _LARGE_MODULE_BYTES else 6
    unfinished = path.with_name(path.name + ".part")
    try:
        with unfinished.open("wb") as raw:
            # No file name and no time in gzip's header, fixed owners and times in tar's: the same bytes every time.
            with (
                gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=level, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive,
            ):
                for each in sorted([*contents, name]):
                    if each == name:
                        with module.open("rb") as stream:
                            _add(archive, each, stream, module.stat().st_size)
                    else:
                        _add(archive, each, io.BytesIO(contents[each]), len(contents[each]))
            raw.flush()
            os.fsync(raw.fileno())
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _add(archive: tarfile.TarFile, name: str, stream: IO[bytes], size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = size, 0
    entry.mode = 0o755 if name in ("run.py", "module.so", "module.dylib") else 0o644
    archive.addfile(entry, stream)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
