"""A confined process: what it sees, what it reaches, what it has no right to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tuner.sandbox.confined import confined, run
from tuner.sandbox.start import ENTER_FAILED, Policy, start


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


@confined
def test_no_new_privileges_and_no_capability_that_writes(work_dir: Path) -> None:
    code = "print(open('/proc/self/status').read())"
    status, printed = run(code, Policy(work_dir=work_dir))
    found = dict(line.split(":\t", 1) for line in printed.splitlines() if ":\t" in line)
    assert status == 0
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert int(found["CapEff"], 16) & ~(1 << 2) == 0  # reading any file that Landlock leaves
    assert int(found["CapBnd"], 16) & ~(1 << 2) == 0 or os.geteuid() != 0


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
