"""The filter of system calls, interpreted as the kernel does, and its numbers."""

from __future__ import annotations

import platform
from pathlib import Path

from tuner.sandbox import seccomp


def test_the_filter_decides_as_it_says() -> None:
    """The program, interpreted: each call of both architectures that has a number."""
    x86, arm = (0, 0xC000003E), (1, 0xC00000B7)
    eperm, enosys, allow, kill = 0x00050001, 0x00050026, 0x7FFF0000, 0x80000000
    cases = [
        (x86, 101, (), False, eperm),  # ptrace
        (arm, 117, (), False, eperm),
        (x86, 425, (), False, enosys),  # io_uring_setup
        (arm, 435, (), False, enosys),  # clone3
        (x86, 56, (0x11,), False, allow),  # clone as fork
        (x86, 56, (0x10000011,), False, eperm),
        (arm, 220, (0x40000011,), False, eperm),
        (x86, 41, (2, 1, 0), False, eperm),  # socket
        (x86, 41, (2, 1, 0), True, allow),
        (x86, 41, (10, 0x80801, 6), True, allow),
        (x86, 41, (2, 2, 0), True, eperm),
        (arm, 198, (2, 1, 262), True, eperm),
        (x86, 41, (1, 1, 0), True, eperm),
        (x86, 53, (1, 1, 0), False, allow),  # socketpair
        (x86, 53, (30, 1, 0), False, eperm),
        (x86, 302, (0,), False, allow),  # prlimit64
        (x86, 302, (1,), False, eperm),
        (arm, 140, (0, 5), False, eperm),  # setpriority
        (arm, 140, (0, 0), False, allow),
        (x86, 0, (), False, allow),  # read
        (x86, 0x40000000, (), False, enosys),
    ]
    for (column, architecture), number, arguments, tcp, decision in cases:
        program = seccomp.filter_program(column, architecture, tcp=tcp)
        assert _interpreted(program, number, architecture, arguments) == decision, (column, number, arguments)
        listened = seccomp.filter_program(column, architecture, tcp=tcp, listen=True)
        quiet = decision == allow or number in (435, 0x40000000)
        told = decision if quiet else 0x7FC00000
        assert _interpreted(listened, number, architecture, arguments) == told, (column, number, arguments)
    for (column, architecture), install, control in ((x86, 317, 157), (arm, 277, 167)):
        program = seccomp.filter_program(column, architecture, tcp=False, listen=True)
        assert _interpreted(program, install, architecture, (0,)) == eperm
        assert [_interpreted(program, control, architecture, (what,)) for what in (22, 15)] == [eperm, allow]
    assert _interpreted(seccomp.filter_program(*x86, tcp=False), 0, arm[1], ()) == kill


def _interpreted(program: list[seccomp.Instruction], number: int, architecture: int, arguments: tuple[int, ...]) -> int:
    words = {0: number, 4: architecture, **{16 + 8 * index: value for index, value in enumerate(arguments)}}
    at, loaded = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        match code:
            case 0x20:
                loaded = words.get(value, 0)
            case 0x54:
                loaded &= value
            case 0x15:
                at += yes if loaded == value else no
            case 0x35:
                at += yes if loaded >= value else no
            case 0x45:
                at += yes if loaded & value else no
            case 0x06:
                return value
            case _:
                raise AssertionError(code)


def test_the_numbers_of_calls_are_this_kernels() -> None:
    header = Path(
        "/usr/include/asm-generic/unistd.h"
        if platform.machine() == "aarch64"
        else "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
    )
    if not header.exists():  # with a C library that has no headers: whoever develops here has them
        return
    words = [line.split() for line in header.read_text().splitlines()]
    numbers = {
        each[1].removeprefix("__NR_").removeprefix("__NR3264_"): each[2]
        for each in words
        if each[:1] == ["#define"] and len(each) > 2
    }
    column = 1 if platform.machine() == "aarch64" else 0
    known = {**seccomp._REFUSED, **seccomp._MISSING, **{name: pair for name, (pair, _) in seccomp._OWN.items()}}
    wrong = {
        name: pair[column] for name, pair in known.items() if name in numbers and str(pair[column]) != numbers[name]
    }
    assert wrong == {}
    assert len(known.keys() & numbers.keys()) > 40
