"""Seccomp: which system calls a process and its children may not make from now on. A filter in classic BPF.

Landlock decides about files and TCP ports; this takes away what it does not know of: every other kind of socket, those
of files among them, other processes' memory and limits, namespaces, mounts, and interfaces to the kernel that no
compiler needs. A refused call fails with EPERM, or ENOSYS where libraries fall back to an older call; somebody may
listen to what is refused (`tuner.sandbox.refusals`).
(``linux/seccomp.h``, ``linux/filter.h``, docs.kernel.org/userspace-api/seccomp_filter.html)
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
import sys

_SET_MODE_FILTER, _LOG_REFUSALS, _NEW_LISTENER = 1, 1 << 1, 1 << 3
# Kernels before 5.16 forbid processes with a filter to speculate on memory, which makes what is measured slower. What
# such a process could guess is in its own memory.
_MAY_SPECULATE = 1 << 2
_ALLOW, _KILL, _ERRNO, _ASK_LISTENER = 0x7FFF0000, 0x80000000, 0x00050000, 0x7FC00000
# Instructions of classic BPF: load a word of the call, compare, mask, return.
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_GREATER_OR_EQUAL, _JUMP_IF_ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
# Offsets in ``struct seccomp_data``; of an argument its low word, on little-endian machines.
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_X32_CALLS = 0x40000000
_NAMESPACES = 0x7E020000  # CLONE_NEW*: namespaces of mounts, control groups, names, IPC, users, processes, network
_TYPE_BITS = 0xF
_TCP = (0, socket.IPPROTO_TCP)  # not MPTCP: Landlock does not know it

# What is refused, by its numbers on x86-64 and on arm64 (None: it is not there).
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "modify_ldt": (154, None),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "semget": (64, 190),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "shmget": (29, 194),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vhangup": (153, 58),
}
# These a library tries first, and does without: io_uring would make sockets behind the filter's back.
_MISSING: dict[str, tuple[int, int]] = {
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
}
# The same, but for every thread, so that nobody listens to it: its flags are where a filter cannot look.
_CLONE3 = (435, 435)
_CLONE, _SOCKET, _SOCKETPAIR = (56, 220), (41, 198), (53, 199)
# Of oneself only (0): by the argument with the process.
_OWN: dict[str, tuple[tuple[int, int], int]] = {"prlimit64": ((302, 261), 0), "setpriority": ((141, 140), 1)}
# By what `platform.machine` says: which of the numbers, and the kernel's name of the architecture.
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_SECCOMP, _PRCTL, _PR_SET_SECCOMP = (317, 277), (157, 167), 22

Instruction = tuple[int, int, int, int]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def is_supported() -> bool:
    """Whether this machine's calls are known here, and its kernel has filters."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return False
    # Without a filter the kernel says so by its error: the pointer leads nowhere.
    column, _ = _MACHINES[platform.machine()]
    libc = ctypes.CDLL(None, use_errno=True)
    return libc.syscall(_SECCOMP[column], _SET_MODE_FILTER, 0, None) < 0 and ctypes.get_errno() == errno.EFAULT


def restrict(*, tcp: bool, listen: bool = False) -> int | None:
    """Refuse the calls above to this thread and whatever it starts, for good; after ``no_new_privs`` was set.

    No socket can be made but a pair of connected ones, and with ``tcp`` those of TCP. With ``listen`` refused calls
    wait for whoever has the descriptor that this returns, and who must refuse them; None where the kernel has none to
    give: a container's manager listens already, or Linux is older than 5.0. Raises OSError.
    """
    if listen:
        try:
            return _install(_NEW_LISTENER, tcp=tcp)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EINVAL):
                raise
    _install(0, tcp=tcp)
    return None


def _install(flags: int, *, tcp: bool) -> int:
    column, architecture = _MACHINES[platform.machine()]
    program = filter_program(column, architecture, tcp=tcp, listen=bool(flags & _NEW_LISTENER))
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    attributes = _Program(length=len(program), filter=code)
    flags |= _LOG_REFUSALS | _MAY_SPECULATE
    libc = ctypes.CDLL(None, use_errno=True)
    installed = libc.syscall(_SECCOMP[column], _SET_MODE_FILTER, flags, ctypes.byref(attributes))
    if installed < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    return int(installed)


def refusal(number: int) -> tuple[str, int]:
    """The name of a call that a listener was asked about, and the error that it fails with."""
    column, _ = _MACHINES[platform.machine()]
    names = {numbers[column]: name for name, numbers in _REFUSED.items()}
    names |= {numbers[column]: name for name, numbers in _MISSING.items()}
    names |= {numbers[column]: name for name, (numbers, _) in _OWN.items()}
    names |= {_CLONE[column]: "clone", _SOCKET[column]: "socket", _SOCKETPAIR[column]: "socketpair"}
    name = names.get(number, f"call {number}")
    return name, errno.ENOSYS if name in _MISSING else errno.EPERM


def filter_program(column: int, architecture: int, *, tcp: bool, listen: bool = False) -> list[Instruction]:
    """The instructions; a jump's two numbers are how many to leave out when it holds, and when it does not.

    With ``listen`` no other filter can be added: of two that ask a listener the newer one's is asked, which could allow
    what ours refuses as soon as ours is gone.
    """
    never, missing = _return(_ERRNO | errno.EPERM), _return(_ERRNO | errno.ENOSYS)
    refuse = _return(_ASK_LISTENER) if listen else never
    program = [_load(_ARCHITECTURE), (_JUMP_IF_EQUAL, 1, 0, architecture), _return(_KILL), _load(_NUMBER)]
    if column == 0:
        program += [(_JUMP_IF_GREATER_OR_EQUAL, 0, 1, _X32_CALLS), missing]
    if listen:
        filters = [_load_argument(0), (_JUMP_IF_EQUAL, 0, 1, _PR_SET_SECCOMP), never, _return(_ALLOW)]
        program += [*_when(_SECCOMP[column], [never]), *_when(_PRCTL[column], filters)]
    for numbers in _REFUSED.values():
        if (number := numbers[column]) is not None:
            program += _when(number, [refuse])
    for pair in _MISSING.values():
        program += _when(pair[column], [refuse if listen else missing])
    program += _when(_CLONE3[column], [missing])
    flags = [_load_argument(0), (_JUMP_IF_ANY_BIT, 0, 1, _NAMESPACES), refuse]
    program += _when(_CLONE[column], [*flags, _return(_ALLOW)])
    program += _when(_SOCKETPAIR[column], [_load_argument(0), *_unless([socket.AF_UNIX], refuse), _return(_ALLOW)])
    internet = [
        *(_load_argument(0), *_unless([socket.AF_INET, socket.AF_INET6], refuse)),
        *(_load_argument(1), (_AND, 0, 0, _TYPE_BITS), *_unless([socket.SOCK_STREAM], refuse)),
        *(_load_argument(2), *_unless(_TCP, refuse)),
        _return(_ALLOW),
    ]
    program += _when(_SOCKET[column], internet if tcp else [refuse])
    for pair, argument in _OWN.values():
        program += _when(pair[column], [_load_argument(argument), *_unless([0], refuse), _return(_ALLOW)])
    return [*program, _return(_ALLOW)]


def _when(number: int, instructions: list[Instruction]) -> list[Instruction]:
    """For one call; they end with a return."""
    return [(_JUMP_IF_EQUAL, 0, len(instructions), number), *instructions]


def _unless(values: list[int] | tuple[int, ...], otherwise: Instruction) -> list[Instruction]:
    """Go on where what was loaded is one of the values."""
    count = len(values)
    return [*((_JUMP_IF_EQUAL, count - index, 0, int(value)) for index, value in enumerate(values)), otherwise]


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _load_argument(index: int) -> Instruction:
    return _load(_FIRST_ARGUMENT + 8 * index)


def _return(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)
