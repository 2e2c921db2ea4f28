"""A board that is not there: a Debian for 64-bit Arm, run by QEMU's user-mode emulation, with TVM's RPC server in it.

    python -m tests.tuner.measure.emulated ROOT        makes it, in a minute and 900 MB; needs root, debootstrap, QEMU

Debian's mirror is the one that this machine's apt uses; the wheels are those of the bundle's requirements.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

QEMU = "qemu-aarch64-static"
_SUITE = "bookworm"
_PACKAGES = "python3,libgomp1"
_DONE = ".made"
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
# The header of an ELF file for aarch64, and what of it counts (QEMU's scripts/qemu-binfmt-conf.sh).
_MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def missing() -> str | None:
    """Why no board can be emulated here; None where one can."""
    if os.geteuid() != 0:
        return "only root can make and enter the root file system of an emulated board"
    for program in ("debootstrap", QEMU, "dpkg", "unshare", "chroot"):
        if shutil.which(program) is None:
            return f"{program} is not installed (Debian: apt install debootstrap qemu-user-static)"
    try:
        _enable_emulation()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"the kernel does not run programs by QEMU here: {error}"
    return None


def make_root(root: Path, requirements: Sequence[str]) -> None:
    """Make the board's root file system, unless it is there already."""
    if (root / _DONE).exists():
        return
    shutil.rmtree(root, ignore_errors=True)
    root.parent.mkdir(parents=True, exist_ok=True)
    _run(
        "debootstrap",
        "--arch=arm64",
        "--foreign",
        "--variant=minbase",
        f"--include={_PACKAGES}",
        _SUITE,
        str(root),
        _mirror(),
    )
    for archive in sorted((root / "var/cache/apt/archives").glob("*.deb")):
        _run("dpkg", "-x", str(archive), str(root))
        archive.unlink()
    wheels = root / "opt/wheels"
    platforms = [argument for platform in _PLATFORMS for argument in ("--platform", platform)]
    abis = [argument for abi in ("cp311", "abi3", "none") for argument in ("--abi", abi)]
    _run(
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(wheels),
        "--implementation",
        "cp",
        "--python-version",
        "3.11",
        *platforms,
        *abis,
        *requirements,
    )
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive_of_wheel:
            archive_of_wheel.extractall(root / "opt/site")
    shutil.rmtree(wheels)
    (root / _DONE).touch()


def inside(root: Path, *command: str) -> list[str]:
    """A command that runs another one inside of the board, in a mount namespace of its own."""
    script = (
        f"mount --bind /dev {root}/dev && mount -t proc proc {root}/proc && "
        f'exec chroot {root} /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp PYTHONPATH=/opt/site "$@"'
    )
    return ["unshare", "--mount", "sh", "-c", script, "sh", *command]


def _enable_emulation() -> None:
    if not (_BINFMT / "register").exists():
        _run("mount", "-t", "binfmt_misc", "binfmt_misc", str(_BINFMT))
    if not (_BINFMT / "qemu-aarch64").exists():
        interpreter = shutil.which(QEMU)
        (_BINFMT / "register").write_text(f":qemu-aarch64:M::{_MAGIC}:{_MASK}:{interpreter}:F")


def _mirror() -> str:
    """The first mirror of Debian that apt knows."""
    found = _run("apt-get", "indextargets", "--format", "$(REPO_URI)").split()
    return next(uri for uri in found if "debian" in uri and "security" not in uri)


def _run(*command: str) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with status {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
    return done.stdout


if __name__ == "__main__":
    from tuner.board_setup import board_requirements

    make_root(Path(sys.argv[1]), board_requirements())
