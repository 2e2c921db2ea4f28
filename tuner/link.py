"""Linking: object files → one shared library, with whatever compiler driver this machine has.

The host's own compiler driver is used for the host when there is one; otherwise, and for every other triple, zig
from PyPI links. A machine without any compiler works. What is to be linked elsewhere is an archive of object files.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache as cached
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuner.errors import BuildError

# zig compiles its C library stubs the first time that a triple is linked: 15 to 20 s on two cores.
_TIMEOUT_S = 300
_ZIG = "zig cc"
_INSTRUMENT = Path(__file__).with_name("bundle_files") / "profile.c"


@dataclass(frozen=True, kw_only=True)
class Driver:
    """A command that takes what C compilers take; ``name`` is for the log."""

    name: str
    command: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Linker:
    """A command that takes ``-o OUTPUT OBJECTS`` and makes a shared library; ``name`` is for the log."""

    name: str
    command: tuple[str, ...]
    libraries: tuple[str, ...] = ()


def find_linker(triple: str, *, fast: bool = False) -> Linker:
    """The linker for a triple such as ``x86_64-linux-gnu``.

    ``fast`` links without a compiler driver, for candidates that are loaded by this process' Python only (4 to 20 ms
    instead of 30 to 90): their few undefined symbols are found in the process. What they take from the C library comes
    from the very files that are loaded here, with their versions: a reference without one is bound to the oldest
    version of a symbol, and glibc's old ``expf`` takes twice as long as the one that a shipped module gets.
    Raises `BuildError` (``linker_missing``) naming what to install.
    """
    own = triple == host_triple()
    zig = _zig()
    if fast and "linux" in triple:
        libraries = ("--as-needed", *loaded_c_library()) if own else ()
        if own and (ld := shutil.which("ld")):
            return Linker(name="ld", command=(ld, "-shared"), libraries=libraries)
        if zig:
            return Linker(name="zig ld.lld", command=(zig, "ld.lld", "-shared"), libraries=libraries)
    driver = find_driver(triple)
    command = (*driver.command, "-shared", "-fPIC")
    if triple.endswith("-macos"):
        # The runtime's symbols are found when the library is loaded, as they are on Linux without asking.
        return Linker(name=driver.name, command=(*command, "-Wl,-undefined,dynamic_lookup"))
    return Linker(name=driver.name, command=command, libraries=("-lm",))


@cached
def loaded_c_library() -> tuple[str, ...]:
    """The files of glibc that this process has loaded, its mathematical functions first; empty where it is another."""
    try:
        mapped = Path("/proc/self/maps").read_text()
    except OSError:
        return ()
    files = {line.split(maxsplit=5)[-1] for line in mapped.splitlines()}
    return tuple(sorted((file for file in files if file.endswith(("/libm.so.6", "/libc.so.6"))), reverse=True))


def filled_cache(triple: str) -> Path | None:
    """A folder of zig's that holds what it compiles once for a triple, for jobs to begin with a copy; nothing of a
    model has a part in it. None where something else links."""
    try:
        driver = find_driver(triple)
    except BuildError:
        return None
    if driver.name != _ZIG or "windows" in triple:
        return None
    folder = _cache_home() / "tessera" / triple
    filled = folder / f"filled-{version('ziglang')}"
    if not filled.exists():
        with tempfile.TemporaryDirectory(prefix="link-") as made:
            source = Path(made) / "empty.c"
            source.write_text("int empty;\n")
            command = [*driver.command, "-shared", "-fPIC", str(source), "-o", str(source.with_suffix(".so")), "-lm"]
            try:
                _run(driver.name, command, triple=triple, cache=folder)
            except BuildError:
                return None  # what a job links says why
        filled.touch()
    return folder


def find_driver(triple: str) -> Driver:
    """The C compiler driver for a triple. Raises `BuildError` (``linker_missing``) naming what to install."""
    own = triple == host_triple()
    path = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if own and path:
        return Driver(name=Path(path).name, command=(path,))
    if zig := _zig():
        return Driver(name=_ZIG, command=(zig, "cc", "-target", triple))
    raise BuildError(
        f"There is no linker for {triple} on this machine.",
        code="linker_missing",
        hint="Install zig from PyPI (pip install ziglang)"
        + (" or a C compiler (Debian: apt install gcc)." if own else "."),
    )


def link_shared(objects: Sequence[Path], output: Path, *, triple: str, fast: bool = False) -> None:
    """Link objects into a shared library, whole or not at all.

    Raises `BuildError` (``linker_missing``, or ``link_failed`` with the linker's message in ``details``).
    """
    linker = find_linker(triple, fast=fast)
    unfinished = output.with_name(output.name + ".part")
    try:
        _run(
            linker.name, [*linker.command, "-o", str(unfinished), *map(str, objects), *linker.libraries], triple=triple
        )
        unfinished.replace(output)
    finally:
        unfinished.unlink(missing_ok=True)


def compile_c(source: Path, output: Path, *, triple: str, include: Path) -> None:
    """Compile one C file into an object file, with the headers of ``include``.

    Raises `BuildError` (``linker_missing``, or ``link_failed`` with the compiler's message in ``details``).
    """
    driver = find_driver(triple)
    _run(
        driver.name,
        [*driver.command, "-O2", "-g0", "-fPIC", f"-I{include}", "-c", str(source), "-o", str(output)],
        triple=triple,
    )


def export_module(executable: Any, output: Path, *, triple: str) -> None:
    """Write a compiled Relax executable, constants included, as one self-contained shared library, or as an archive of
    its object files where the output's name ends in ``.tar``. The instrument that times its functions is in it.

    TVM packs the constants into an object file by LLVM: 244 MB took 3.7 s and 0.3 GB of extra memory.
    """

    from tvm_ffi.libinfo import find_include_path

    def link(path: str, files: list[str], **_: object) -> None:
        objects = [Path(file) for file in files]
        if "windows" not in triple:  # zig has none of its headers
            objects.append(Path(path).with_name("profile.o"))
            compile_c(_INSTRUMENT, objects[-1], triple=triple, include=Path(find_include_path()))
        if output.suffix == ".tar":
            pack_objects(objects, Path(path))
        else:
            link_shared(objects, Path(path), triple=triple)

    with tempfile.TemporaryDirectory(prefix="link-", dir=output.parent) as workspace:
        executable.export_library(str(output), fcompile=link, workspace_dir=workspace)


def _run(name: str, command: Sequence[str], *, triple: str, cache: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            env=_environment(cache),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            f"{name} did not finish within {_TIMEOUT_S} s.",
            code="link_failed",
            hint="The machine may be overloaded, or out of memory or disk space. Try again.",
        ) from error
    if done.returncode:
        raise BuildError(
            f"{name} failed with status {done.returncode} for {triple}.",
            code="link_failed",
            hint="Check free disk space and the target's triple; the compiler's message is in the details.",
            details={"command": [name, *command[1:3]], "message": done.stderr[-2000:]},
        )


def pack_objects(objects: Sequence[Path], output: Path) -> None:
    """An archive of object files, named ``0.o``, ``1.o``, …: the same bytes for the same objects."""
    unfinished = output.with_name(output.name + ".part")
    with tarfile.open(unfinished, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for number, path in enumerate(objects):
            entry = tarfile.TarInfo(f"{number}.o")
            entry.size, entry.mtime, entry.mode = path.stat().st_size, 0, 0o644
            with path.open("rb") as stream:
                archive.addfile(entry, stream)
    unfinished.replace(output)


def host_triple() -> str:
    """The link triple of this machine, as targets name it."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    return f"{machine}-linux-gnu"


def _zig() -> str | None:
    """zig's binary inside the installed wheel: found without PATH, and started without a second Python."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        return None
    binary = Path(spec.origin).with_name("zig")
    return str(binary) if os.access(binary, os.X_OK) else None


def _environment(cache: Path | None = None) -> dict[str, str]:
    """zig needs a writable cache of its own; services often run without a home directory."""
    given = os.environ.get("ZIG_GLOBAL_CACHE_DIR")
    cache = cache or (Path(given) if given else _cache_home() / "zig")
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}


def _cache_home() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    try:
        Path(home).mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.gettempdir()) / f"tessera-{os.getuid()}"
    return Path(home) if os.access(home, os.W_OK) else Path(tempfile.gettempdir()) / f"tessera-{os.getuid()}"
