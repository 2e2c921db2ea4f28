"""A bundle as a Python wheel: ``pip install model.whl``, then ``from model import run``."""

from __future__ import annotations

import base64
import hashlib
import keyword
import re
import tempfile
import zipfile
from pathlib import Path

from tuner.bundle import BundleError, bundle_files, read_manifest, target_of, unpack_bundle

# The platform tags of pip (PEP 425), by the start of the link triple.
_PLATFORMS = {
    "x86_64-linux": "linux_x86_64",
    "aarch64-linux": "linux_aarch64",
    "aarch64-macos": "macosx_11_0_arm64",
}
_INIT = '''\
"""{model}, compiled by Tessera for {device}: ``run(name=array, …)`` gives the outputs by name, as NumPy arrays."""

from .run import MANIFEST, Network

_network = None


def run(**inputs):
    """Run the network; it is loaded by the first call."""
    global _network
    if _network is None:
        _network = Network()
    return _network(**inputs)


__all__ = ["MANIFEST", "Network", "run"]
'''
_WHEEL = "Wheel-Version: 1.0\nGenerator: tessera\nRoot-Is-Purelib: false\nTag: py3-none-{platform}\n"
_METADATA = """\
Metadata-Version: 2.4
Name: {name}
Version: {version}
Summary: {model}, compiled by Tessera for {device}
Requires-Python: >=3.11
"""


def write_wheel(bundle: Path, folder: Path) -> Path:
    """Write the wheel of a bundle into a folder; the same bytes for the same bundle.

    Its name is the model's, its version ends in the first digits of the module's SHA-256. Raises `BundleError` for
    bundles of object files, and for systems that pip does not know.
    """
    manifest = read_manifest(bundle)
    target = target_of(manifest)
    platform = next((tag for start, tag in _PLATFORMS.items() if target.triple.startswith(start)), None)
    module = manifest.get("module", "module.so")
    if platform is None or module == "module.tar":
        raise BundleError(
            f"{bundle.name} is for {target.triple}, for which there is no wheel of the TVM runtime.",
            hint="Use the bundle itself: its README says how.",
        )
    name = package_name(manifest["model"]["name"])
    version = f"1.0+{manifest['files'][module]['sha256'][:12]}"
    about = {"name": name, "version": version, "model": manifest["model"]["name"], "device": target.device}
    with tempfile.TemporaryDirectory(prefix="wheel-") as directory:
        unpacked = Path(directory)
        unpack_bundle(bundle, unpacked)
        contents = {f"{name}/{each}": (unpacked / each).read_bytes() for each in bundle_files(manifest)}
    requires = contents[f"{name}/requirements.txt"].decode().split()
    info = f"{name}-{version}.dist-info"
    contents[f"{name}/__init__.py"] = _INIT.format(**about).encode()
    contents[f"{info}/METADATA"] = (
        _METADATA.format(**about) + "".join(f"Requires-Dist: {each}\n" for each in requires)
    ).encode()
    contents[f"{info}/WHEEL"] = _WHEEL.format(platform=platform).encode()
    contents[f"{info}/RECORD"] = _record(contents, f"{info}/RECORD")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-{platform}.whl"
    unfinished = path.with_name(f".{path.name}.part")
    with zipfile.ZipFile(unfinished, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for each, data in sorted(contents.items()):
            archive.writestr(zipfile.ZipInfo(each), data, compress_type=zipfile.ZIP_DEFLATED)
    unfinished.replace(path)
    return path


def package_name(model: str) -> str:
    """A name that can be imported, of a model's."""
    name = re.sub(r"\W+", "_", model.removesuffix(".onnx"), flags=re.ASCII).strip("_").lower()
    return name if name.isidentifier() and not keyword.iskeyword(name) else f"model_{name}"


def _record(contents: dict[str, bytes], own: str) -> bytes:
    lines = [
        f"{name},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip('=')},{len(data)}\n"
        for name, data in sorted(contents.items())
    ]
    return ("".join(lines) + f"{own},,\n").encode()
