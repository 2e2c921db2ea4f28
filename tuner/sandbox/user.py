"""A user of its own for each confined process and what it starts, where the service runs as root.

The kernel does not limit how many processes root has, and lets it signal all others; those of another user it counts
together, so that two jobs of one user could take each other's. The other user owns nothing: the work directory is given
to it, and so that the interpreter and what it imports may lie wherever root can read them, it keeps one capability, to
read files regardless of their permissions. Which files those are is up to Landlock: without it there is no other user.
"""

from __future__ import annotations

import ctypes
import os
import secrets
from collections.abc import Collection, Iterator
from pathlib import Path

# Nobody else's: systemd lists 60706 to 61183 as unused (UIDS-GIDS), and of the packages that Debian gives numbers from
# 60000 on, none has one of these. A container maps them as well.
SANDBOX_UIDS = range(60_928, 61_184)

_DROP_FROM_BOUNDING_SET, _SET_SECURE_BITS, _AMBIENT, _RAISE = 24, 28, 47, 2
_NO_SETUID_FIXUP = 1 << 2
# CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID, CAP_SETPCAP
_READ_ANY_FILE, _SET_GROUPS, _SET_USER, _SET_CAPABILITIES = 2, 6, 7, 8
_CAPABILITIES_VERSION = 0x20080522
_LAST_CAPABILITY = 63


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Capabilities(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def can_change() -> bool:
    """Whether this process is root and may become one of the users above, whom our user namespace must know."""
    if os.geteuid() != 0:
        return False
    held = _capabilities("CapEff")
    needed = sum(1 << each for each in (_READ_ANY_FILE, _SET_GROUPS, _SET_USER, _SET_CAPABILITIES))
    return held & needed == needed and _are_mapped(SANDBOX_UIDS)


def unused() -> int:
    """One of the users above that has no process now; any of them, so that two who ask at once get two."""
    return secrets.choice(sorted(set(SANDBOX_UIDS) - {uid for _, uid in processes()}) or SANDBOX_UIDS)


def processes() -> Iterator[tuple[str, int]]:
    """Every process by its number, and whose it is, as far as ``/proc`` tells."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                uid = os.stat(f"/proc/{name}").st_uid
            except OSError:  # ended meanwhile, or hidden
                continue
            yield name, uid


def change(uid: int) -> None:
    """Become a user, with all capabilities given up but that of reading any file. Raises OSError."""
    give_up_capabilities(but={_READ_ANY_FILE})
    libc = ctypes.CDLL(None, use_errno=True)
    # The change takes no capability away, and `access` answers as the kernel would decide: gcc asks it about paths.
    _checked(libc.prctl(_SET_SECURE_BITS, _NO_SETUID_FIXUP, 0, 0, 0), "prctl")
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    kept = 1 << _READ_ANY_FILE
    words = (_Capabilities * 2)(_Capabilities(kept, kept, kept), _Capabilities(0, 0, 0))
    _checked(libc.capset(ctypes.byref(_Header(_CAPABILITIES_VERSION, 0)), words), "capset")
    _checked(libc.prctl(_AMBIENT, _RAISE, _READ_ANY_FILE, 0, 0), "prctl")


def give_up_capabilities(*, but: Collection[int] = ()) -> None:
    """No program that is started from here on has any but those; only root has some to lose, and may do this."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in range(_LAST_CAPABILITY + 1):
        if capability not in but:
            libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def _capabilities(which: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1], 16) for line in lines if line.startswith(f"{which}:")), 0)


def _are_mapped(uids: range) -> bool:
    """Whether the users exist in our user namespace."""
    try:
        ranges = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
    except OSError:
        return False
    return any(int(first) <= uids[0] and uids[-1] < int(first) + int(count) for first, _, count in ranges)


def _checked(result: int, name: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
