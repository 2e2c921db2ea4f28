"""How much a confined process may take, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from tests.service.conftest import until
from tests.tuner.sandbox.confined import MIB, confined, run
from tuner.sandbox.limits import Limits
from tuner.sandbox.start import Policy, start


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
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each a user of its own")
def test_whoever_forks_without_end_takes_nothing_from_others(tmp_path: Path) -> None:
    code = """
import os, sys, time
try:
    for _ in range(int(input())):
        if os.fork() == 0:
            time.sleep(60)
    print("all", flush=True)
except BlockingIOError:
    print("refused", flush=True)
time.sleep(60)
"""
    with ExitStack() as stack:
        children = []
        for name in ("honest", "hostile"):
            (tmp_path / name).mkdir()
            policy = Policy(work_dir=tmp_path / name, limits=Limits(processes=20), keeper=True)
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            child = start([sys.executable, "-S", "-c", code], policy, mode="required", **pipes)
            stack.enter_context(child)
            stack.callback(child.terminate)
            children.append(child)
        honest, hostile = children
        assert _answer(hostile, "1000") == "refused"
        assert _answer(honest, "10") == "all"


def _answer(child: subprocess.Popen[bytes], question: str) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{question}\n".encode())
    child.stdin.flush()
    return child.stdout.readline().decode().strip()


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
