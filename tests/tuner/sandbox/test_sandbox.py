"""Confined processes: what the kernel lets them do, tried for real, without TVM."""

from __future__ import annotations

import errno
import os
import platform
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.service.conftest import until
from tuner.errors import SandboxUnavailable
from tuner.sandbox import Mode, seccomp
from tuner.sandbox.limits import Limits
from tuner.sandbox.refusals import Refusals
from tuner.sandbox.start import ENTER_FAILED, Policy, readable, require, start
from tuner.sandbox.strength import Strength, strength

MIB = 1024**2
confined = pytest.mark.skipif(not strength().is_enough, reason="this machine cannot confine processes")


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir(mode=0o700)
    return folder


def run(code: str, policy: Policy, mode: Mode = "required", *, refusals: Refusals | None = None) -> tuple[int, str]:
    """The exit code of a program, and what it printed."""
    command = [sys.executable, "-S", "-c", code]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    child = start(command, policy, mode=mode, refusals=refusals, **output)
    output, _ = child.communicate(timeout=60)
    return child.returncode, output.decode()


@confined
def test_a_program_sees_what_it_needs_and_its_folder(work_dir: Path, tmp_path: Path) -> None:
    given, secret = tmp_path / "model.onnx", tmp_path / "secret"
    given.write_text("a model")
    secret.write_text("a secret")
    code = f"""
import ctypes, os, subprocess, sys, tempfile
print(open({str(given)!r}).read(), os.getcwd(), tempfile.gettempdir(), os.access(os.getcwd(), 7))
open("made", "w").write("x"); os.mkdir("folder"); os.rename("made", "folder/moved")
print(subprocess.run([sys.executable, "-S", "-c", "print('a child')"], capture_output=True, text=True).stdout.strip())
print(os.sched_getaffinity(0) == {os.sched_getaffinity(0)!r}, os.path.exists("/proc/cpuinfo"))
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
for path in ({str(secret)!r}, "/etc/shadow", "/etc/passwd", {str(Path.home())!r}):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path)
        print("WORKED", path)
    except PermissionError:
        pass
for path in ({str(given)!r}, sys.executable, os.__file__):
    try:
        open(path, "a")
        print("WORKED", path)
    except PermissionError:
        pass
"""
    status, printed = run(code, Policy(work_dir=work_dir, read=(given,)))
    assert (status, printed.splitlines()) == (0, [f"a model {work_dir} {work_dir} True", "a child", "True True"])
    assert (work_dir / "folder" / "moved").read_text() == "x"


@confined
def test_only_the_ports_of_a_job_are_connected_to(work_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as given, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [listener.getsockname()[1] for listener in (given, other)]
        code = f"""
import socket
for port in {ports}:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=3).close()
        print("connected")
    except PermissionError:
        print("refused")
for family, kind, protocol in ((2, 2, 0), (1, 1, 0), (2, 1, 262), (2, 3, 1)):
    try:
        socket.socket(family, kind, protocol)
        print("WORKED", family, kind, protocol)
    except PermissionError:
        pass
try:
    socket.create_server(("127.0.0.1", 0))
    print("listens")
except PermissionError:
    print("refused")
first, second = socket.socketpair()
first.sendall(b"pair"); print(second.recv(4).decode())
"""
        status, printed = run(code, Policy(work_dir=work_dir, connect=(ports[0],)))
        assert (status, printed.split()) == (0, ["connected", "refused", "refused", "pair"])


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


@confined
def test_limits_hold(work_dir: Path) -> None:
    limits = Limits(
        data_bytes=512 * MIB, address_space_bytes=2048 * MIB, cpu_s=2, file_bytes=MIB, processes=20, open_files=64
    )
    code = """
import errno, os, time
def tried(act):
    try:
        act()
        return "WORKED"
    except MemoryError:
        return "MemoryError"
    except OSError as error:
        return errno.errorcode[error.errno]
def forks():
    for _ in range(100):
        if os.fork() == 0:
            time.sleep(60)
def files():
    for _ in range(100):
        os.open("/dev/null", os.O_RDONLY)
def large():
    with open("f", "wb", 0) as file:
        for _ in range(3):
            file.write(bytes(2**19 + 1))
print(tried(lambda: bytearray(600 * 2**20)), tried(large))
print(tried(files), tried(forks), flush=True)
while True:
    pass
"""
    status, printed = run(code, Policy(work_dir=work_dir, limits=limits, keeper=True))
    assert printed.split() == ["MemoryError", "EFBIG", "EMFILE", "EAGAIN"]
    assert status in (-signal.SIGXCPU, -signal.SIGKILL)


@confined
def test_no_new_privileges_and_no_capability_that_writes(work_dir: Path) -> None:
    code = "print(open('/proc/self/status').read())"
    status, printed = run(code, Policy(work_dir=work_dir))
    found = dict(line.split(":\t", 1) for line in printed.splitlines() if ":\t" in line)
    assert status == 0
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert int(found["CapEff"], 16) & ~(1 << 2) == 0  # reading any file that Landlock leaves
    assert int(found["CapBnd"], 16) & ~(1 << 2) == 0 or os.geteuid() != 0


@confined
def test_a_keeper_ends_what_is_left(work_dir: Path) -> None:
    code = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-S", "-c", "import time; time.sleep(123456)"], {})
    os._exit(0)
os.wait()
time.sleep(0.5)
os.kill(os.getpid(), 11)
"""
    status, _ = run(code, Policy(work_dir=work_dir, keeper=True, remove=True))
    assert not work_dir.exists()
    assert status == -signal.SIGSEGV
    assert until(lambda: not any("import time; time.sleep(123456)" in line for line in _command_lines()))


def _command_lines() -> list[list[str]]:
    lines = []
    for process in psutil.process_iter():
        try:
            lines.append(process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else [])
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return lines


@confined
def test_a_confined_process_ends_with_who_started_it(work_dir: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from tuner.sandbox.start import Policy, start
policy = Policy(work_dir=Path({str(work_dir)!r}))
child = start([sys.executable, "-c", "import time; time.sleep(600)"], policy, mode="auto")
print(child.pid, flush=True)
time.sleep(600)
"""
    root = Path(__file__).parents[3]
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=root)
    assert parent.stdout is not None
    with parent:
        pid = int(parent.stdout.readline())
        until(lambda: psutil.Process(pid).cmdline()[1:2] == ["-c"])
        parent.kill()
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not group by sessions")
@pytest.mark.parametrize("mode", ["auto", "off"])
def test_the_session_is_as_nice_as_that_of_whoever_starts_it(work_dir: Path, mode: str) -> None:
    """Between sessions the niceness of processes counts for nothing."""
    code = f"""
import os, sys
from pathlib import Path
from tuner.priority import session_niceness, set_session_niceness
from tuner.sandbox.start import Policy, start
set_session_niceness(os.getpid(), 3)
policy = Policy(work_dir=Path({str(work_dir)!r}))
child = start([sys.executable, "-c", "import time; time.sleep(600)"], policy, mode={mode!r})
print(session_niceness(child.pid))
child.kill()
"""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root, start_new_session=True
    )
    assert done.stdout == "3\n"


def test_without_a_sandbox_only_folder_and_environment_are_its_own(
    work_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").write_text("seen")
    monkeypatch.setenv("TESSERA_SIGNING_KEY", "secret")
    code = (
        f"import os; print(open({str(tmp_path / 'other')!r}).read(), os.getcwd(), 'TESSERA_SIGNING_KEY' in os.environ)"
    )
    assert run(code, Policy(work_dir=work_dir), "off") == (0, f"seen {work_dir} False\n")


@confined
def test_a_command_does_not_run_with_less_than_was_asked_for(work_dir: Path) -> None:
    child = start(["/no/such/program"], Policy(work_dir=work_dir), mode="auto", stderr=subprocess.PIPE)
    _, complaint = child.communicate(timeout=30)
    assert child.returncode == ENTER_FAILED
    assert b"could not be entered" in complaint


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"landlock_abi": 0}, "files are not protected"),
        ({"landlock_abi": 2}, "files are not protected"),
        ({"seccomp": False}, "network is not protected"),
        ({"own_user": False}, "processes are not limited"),
        ({"own_user": False, "is_root": False, "landlock_abi": 5}, "can be signalled"),
    ],
)
def test_what_is_missing_is_told(
    changes: dict[str, object], told: str, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Strength(**{"landlock_abi": 7, "seccomp": True, "own_user": True, "is_root": True, **changes})  # type: ignore[arg-type]
    assert told in " ".join(found.missing)
    monkeypatch.setattr("tuner.sandbox.start.strength", lambda: found)
    with pytest.raises(SandboxUnavailable, match=told):
        require("required")
    assert require("auto") is found


def test_secrets_that_all_programs_would_see_are_found(work_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Strength(landlock_abi=7, seccomp=True, own_user=True, is_root=True)
    monkeypatch.setattr("tuner.sandbox.start.strength", lambda: whole)
    assert require("required", Policy(work_dir=work_dir, secrets=(work_dir,))) is whole
    with pytest.raises(SandboxUnavailable, match="which confined processes must read"):
        require("required", Policy(work_dir=work_dir, secrets=(Path(readable()[0]) / "data",)))


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
