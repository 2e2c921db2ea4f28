"""Landlock: which files a process and its children may open from now on, which TCP ports they may use.

The three system calls of ``linux/landlock.h``, whose numbers are the same on every architecture in use. What a kernel
does not know yet is left out: `abi` says what there is. (docs.kernel.org/userspace-api/landlock.html)
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from collections.abc import Iterable
from dataclasses import dataclass

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_ASK_FOR_VERSION = 1
_PATH_BENEATH, _NET_PORT = 1, 2
_LOG_AFTER_EXEC = 1 << 1  # denials go to the kernel's audit log, of the program that is started too (7)

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
# The rights that a version of the interface knows, by the version that brought the last of them.
_KNOWN = ((1, (1 << 13) - 1), (2, (1 << 14) - 1), (3, (1 << 15) - 1), (5, (1 << 16) - 1))
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = READ_FILE | READ_DIR
_WRITE = _READ | WRITE_FILE | _TRUNCATE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SYM | _REFER
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_ABSTRACT_UNIX_SOCKETS, _SIGNALS = 1 << 0, 1 << 1

NET_ABI, SCOPES_ABI, _LOG_ABI = 4, 6, 7


class _Ruleset(ctypes.Structure):
    _fields_ = [("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]


class _NetPort(ctypes.Structure):
    _fields_ = [("allowed", ctypes.c_uint64), ("port", ctypes.c_uint64)]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What stays allowed: files and folders with all that is below them. Of a folder in ``listed`` and below only names
    can be seen. ``connect`` are the TCP ports that may be connected to, anywhere; none may be listened on."""

    read: tuple[str, ...] = ()
    execute: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    connect: tuple[int, ...] = ()


def abi() -> int:
    """The version of the kernel's Landlock, 0 where there is none or it was not switched on at boot."""
    if sys.platform != "linux":
        return 0
    version = ctypes.CDLL(None, use_errno=True).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _ASK_FOR_VERSION)
    return max(0, int(version))


def restrict(rules: Rules) -> None:
    """Confine this thread, and whatever it starts, for good; after ``no_new_privs`` was set. Paths that are not there
    are left out. Raises OSError where the kernel refuses."""
    version = abi()
    known = max(rights for since, rights in _KNOWN if since <= version)
    scopes = _ABSTRACT_UNIX_SOCKETS | _SIGNALS if version >= SCOPES_ABI else 0
    net = _BIND_TCP | _CONNECT_TCP if version >= NET_ABI else 0
    ruleset = _call(_CREATE_RULESET, _Ruleset(fs=known, net=net, scoped=scopes))
    try:
        for paths, rights in (
            (rules.read, _READ),
            (rules.execute, _READ | EXECUTE),
            (rules.write, _WRITE),
            (rules.listed, READ_DIR),
        ):
            _allow(ruleset, paths, rights & known)
        for port in rules.connect if net else ():
            _add(ruleset, _NET_PORT, _NetPort(allowed=_CONNECT_TCP, port=port))
        flags = _LOG_AFTER_EXEC if version >= _LOG_ABI else 0
        _checked(_libc().syscall(_RESTRICT_SELF, ruleset, flags))
    finally:
        os.close(ruleset)


def _allow(ruleset: int, paths: Iterable[str], rights: int) -> None:
    for path in paths:
        try:
            descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
            allowed = rights if is_folder else rights & _OF_FILES
            if allowed:
                _add(ruleset, _PATH_BENEATH, _PathBeneath(allowed=allowed, parent=descriptor))
        finally:
            os.close(descriptor)


def _add(ruleset: int, kind: int, rule: ctypes.Structure) -> None:
    _checked(_libc().syscall(_ADD_RULE, ruleset, kind, ctypes.byref(rule), 0))


def _call(number: int, attributes: ctypes.Structure) -> int:
    size = ctypes.c_size_t(ctypes.sizeof(attributes))
    return _checked(_libc().syscall(number, ctypes.byref(attributes), size, 0))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {os.strerror(number)}")
    return result
