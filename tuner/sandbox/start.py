"""Starting a command confined: what every program of ours needs to see, and what one of them gets beside it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tuner.errors import SandboxUnavailable
from tuner.priority import yield_as_we_do
from tuner.sandbox import Mode, enter, user
from tuner.sandbox.landlock import Rules
from tuner.sandbox.limits import Limits
from tuner.sandbox.refusals import Refusals
from tuner.sandbox.strength import Strength, strength

ENTER_FAILED = enter.FAILED
_ROOT = Path(__file__).resolve().parents[2]
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
# The dynamic loader's and the linker's, the processor as libraries ask for it, and what a container may use of memory.
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/hosts", "/etc/nsswitch.conf")
_KERNEL = ("/proc", "/sys/devices/system", "/sys/fs/cgroup/memory.max", "/dev/urandom", "/dev/random", "/dev/zero")
# What a confined process keeps of our environment: no secret of the service, no address.
_KEPT = ("PATH", "LANG", "LANGUAGE", "TZ", "LD_LIBRARY_PATH")
_KEPT_PREFIXES = ("LC_", "TVM_", "OMP_", "OPENBLAS_", "MKL_", "KMP_", "GOTO_")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What one confined process gets.

    ``work_dir`` is where it may write, and starts in; ``read`` what it may read beside what all programs of ours need;
    ``secrets`` are folders that must not lie in any of it; ``connect`` are the TCP ports that it may connect to. With
    ``keeper`` another process waits for it, so that nothing that it starts outlives it (`tuner.sandbox.keeper`), and
    with ``remove`` its folder neither; who starts it is not needed for that then.
    """

    work_dir: Path
    read: tuple[Path, ...] = ()
    secrets: tuple[Path, ...] = ()
    connect: tuple[int, ...] = ()
    limits: Limits = field(default_factory=Limits)
    keeper: bool = False
    remove: bool = False


def start(
    command: Sequence[str],
    policy: Policy,
    *,
    mode: Mode,
    environment: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    refusals: Refusals | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a command in its work directory, which is there and holds nothing of others, in a session of its own.

    ``environment`` is added to what is kept of ours; ``refusals`` is told what is refused. With ``mode`` ``off``
    nothing is confined, but environment and directory are the same. Raises `SandboxUnavailable`, and OSError as
    `subprocess` does.
    """
    found = require(mode, policy)
    work_dir = str(policy.work_dir)
    arguments = [shutil.which(command[0]) or command[0], *command[1:]]
    if mode != "off":
        uid = user.unused() if found.own_user else None
        if uid is not None:
            _give(work_dir, uid)
        told = refusals.theirs.fileno() if refusals else None
        pass_fds = [*pass_fds, *([told] if told is not None else [])]
        arguments = [*_ENTER, json.dumps({**_as_json(policy, found), "uid": uid, "refusals": told}), *arguments]
    child = subprocess.Popen(
        arguments,
        cwd=work_dir,
        env={**scrubbed_environment(policy.work_dir), **(environment or {})},
        pass_fds=pass_fds,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    yield_as_we_do(child.pid)
    if refusals:
        refusals.theirs.close()
    return child


def _give(folder: str, uid: int) -> None:
    """Make a user the owner of a folder and all that is in it."""
    os.chown(folder, uid, uid)
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(os.path.join(parent, name), uid, uid, follow_symlinks=False)


def require(mode: Mode, policy: Policy | None = None) -> Strength:
    """What there is here; raises `SandboxUnavailable` where more is required."""
    found = strength()
    if mode != "required":
        return found
    gaps = found.missing + (_exposed(policy) if policy else [])
    if gaps:
        raise SandboxUnavailable(f"TESSERA_SANDBOX=required, and it cannot be had here: {'; '.join(gaps)}.")
    return found


def scrubbed_environment(work_dir: Path) -> dict[str, str]:
    """What is kept of our environment, and what makes a Python of ours work in a directory of its own."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    return {
        **kept,
        "HOME": str(work_dir),
        "TMPDIR": str(work_dir),
        "PYTHONPATH": str(_ROOT),
        "PYTHONSAFEPATH": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


# Without `site` it starts in half the time; it needs nothing of it.
_ENTER = (sys.executable, "-S", "-P", "-m", "tuner.sandbox.enter")


def readable() -> tuple[str, ...]:
    """What every program of ours reads and runs: the interpreter, packages, our own, the system's programs."""
    packages = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    own = [str(_ROOT / name) for name in ("tuner", "schedules")]
    libraries = [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if path]
    interpreter = [sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
    return tuple(dict.fromkeys([*interpreter, *packages, *own, *_SYSTEM, *libraries]))


def _exposed(policy: Policy) -> list[str]:
    """Secrets that lie in what must be readable: there is no rule that takes something away again."""
    roots = [Path(path).resolve() for path in readable()]
    return [
        f"{secret} lies in {root}, which confined processes must read"
        for secret in policy.secrets
        for root in roots
        if secret.resolve().is_relative_to(root)
    ]


def _as_json(policy: Policy, found: Strength) -> dict[str, Any]:
    rules = Rules(
        read=(*_SYSTEM_FILES, *_KERNEL, *map(str, policy.read)),
        execute=readable(),
        write=(str(policy.work_dir), os.devnull),
        # Imports list the folder that our packages lie in.
        listed=(str(_ROOT),),
        connect=policy.connect,
    )
    return {
        "rules": asdict(rules),
        "limits": asdict(policy.limits),
        "landlock": found.landlock_abi > 0,
        "seccomp": found.seccomp,
        "keeper": policy.keeper,
        "remove": str(policy.work_dir) if policy.remove else None,
        "parent": os.getpid(),
    }
