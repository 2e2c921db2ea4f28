"""What a confined process is refused, and how that becomes known."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tuner.sandbox.confined import confined, run
from tuner.sandbox import seccomp
from tuner.sandbox.refusals import Refusals
from tuner.sandbox.start import Policy, start

_TRIED = """
import ctypes, errno, os, socket, struct
libc = ctypes.CDLL(None, use_errno=True)
def told(result):
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "WORKED"
def tried(act):
    try:
        act()
        return "WORKED"
    except OSError as error:
        return errno.errorcode[error.errno]
allow = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", 1, ctypes.addressof(allow)))
"""


@confined
def test_what_is_refused_is_counted_and_told(work_dir: Path) -> None:
    code = (
        _TRIED
        + """
print(*(tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)) for _ in range(3)))
print(told(libc.unshare(0x10000000)), told(libc.ptrace(16, os.getppid(), None, None)), tried(lambda: os.chroot(".")))
print(told(libc.syscall(425, 8, ctypes.create_string_buffer(120))))
if os.fork() == 0:  # what it starts is listened to as well
    print(tried(lambda: socket.socket(socket.AF_UNIX)), flush=True)
    os._exit(0)
os.wait()
"""
    )
    first: list[str] = []
    with Refusals(first.append) as refusals:
        status, printed = run(code, Policy(work_dir=work_dir, keeper=True), refusals=refusals)
    assert status == 0
    assert sorted(printed.split()) == sorted(["EPERM"] * 7 + ["ENOSYS"])
    assert refusals.counts == {"socket": 4, "unshare": 1, "ptrace": 1, "chroot": 1, "io_uring_setup": 1}
    assert sorted(first) == sorted(refusals.counts)
    assert str(refusals).startswith("socket 4 times, ")


@confined
def test_nothing_is_told_where_nothing_is_refused(work_dir: Path) -> None:
    code = "import threading; threading.Thread(target=print, args=('works',)).start()"
    for mode in ("required", "off"):
        with Refusals(lambda name: None) as refusals:
            assert run(code, Policy(work_dir=work_dir), mode, refusals=refusals) == (0, "works\n")  # type: ignore[arg-type]
        assert (refusals.counts, str(refusals)) == ({}, "")


@confined
def test_nobody_else_answers_in_the_listeners_place(work_dir: Path) -> None:
    """A filter of one's own whose listener allows what ours refuses, once ours is gone: it cannot be installed."""
    code = (
        _TRIED
        + """
seccomp = 277 if os.uname().machine == "aarch64" else 317
def attempts():
    print(*(told(libc.syscall(seccomp, 1, flags, program)) for flags in (0, 8)), told(libc.prctl(22, 2, program)),
          tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM)), libc.prctl(15, b"named"), flush=True)
attempts()
input()
attempts()
"""
    )
    with Refusals(lambda name: None) as refusals:
        command = [sys.executable, "-S", "-c", code]
        child = start(
            command,
            Policy(work_dir=work_dir),
            mode="required",
            refusals=refusals,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline().split() == [b"EPERM", b"EPERM", b"EPERM", b"EPERM", b"0"]
    rest, _ = child.communicate(b"\n", timeout=60)  # nobody listens any more
    assert rest.split() == [b"EPERM", b"EPERM", b"EPERM", b"ENOSYS", b"0"]


@confined
def test_whoever_tries_without_end_waits(work_dir: Path) -> None:
    code = (
        _TRIED
        + """
for _ in range(1100):
    tried(lambda: socket.socket(socket.AF_UNIX))
"""
    )
    with Refusals(lambda name: None) as refusals:
        started = time.monotonic()
        assert run(code, Policy(work_dir=work_dir), refusals=refusals) == (0, "")
        assert time.monotonic() - started > 1.0
    assert refusals.counts == {"socket": 1100}


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EINVAL])
def test_where_another_listens_calls_are_refused_all_the_same(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def install(flags: int, *, tcp: bool) -> int:
        asked.append(flags)
        if flags:
            raise OSError(number, "a container's manager listens")
        return 0

    monkeypatch.setattr(seccomp, "_install", install)
    assert seccomp.restrict(tcp=False, listen=True) is None
    assert asked == [seccomp._NEW_LISTENER, 0]
