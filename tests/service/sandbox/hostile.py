"""What a stranger's code does that has taken over the compiler: it runs in the real sandbox, on the real connection.

``ATTACK`` or ``ATTACK ARGUMENT…``. An attack tells what came of each of its attempts by an event of the log
(``NAME: refused: …`` or ``NAME: WORKED``), then fails, but for those that forge something, or die of it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from tests.service.trials import record, workload
from tuner import wire
from tuner.errors import BuildError
from tuner.events import EventSink, Log
from tuner.records import RecordStore
from tuner.request import TuneRequest, TuneResult

MARK = "987654"
"""Of a process that tries to outlive the job: its argument."""
_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206
_MIB = 1024**2


def tune(request: TuneRequest, *, store: RecordStore, sink: EventSink, what: str) -> TuneResult:
    attack, *arguments = what.split()
    return Hostile(request, store, sink).do(attack, arguments)


class Hostile:
    def __init__(self, request: TuneRequest, store: RecordStore, sink: EventSink) -> None:
        self.request = request
        self.store = store
        self.sink = sink

    def do(self, attack: str, arguments: list[str]) -> TuneResult:
        result: TuneResult | None = getattr(self, attack)(*arguments)
        if result is not None:
            return result
        raise BuildError("The attack is over.")

    def attempt(self, name: str, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            told = f"refused: {errno.errorcode.get(error.errno or 0, '?')}"
        else:
            told = "WORKED"
        self.sink.emit(Log(message=f"{name}: {told}"))

    # Other people's things.

    def read(self, *paths: str) -> None:
        for path in paths:
            act = os.listdir if os.path.isdir(path) else _read
            self.attempt(f"read {path}", lambda path=path, act=act: act(path))
            self.attempt(f"write {path}", lambda path=path: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)))
            self.attempt(f"truncate {path}", lambda path=path: os.truncate(path, 0))
            self.attempt(f"remove {path}", lambda path=path: os.unlink(path))
        parent = os.getppid()
        for name in ("environ", "mem", "maps", "fd/1", "fdinfo/1", "auxv", "stack"):
            path = f"/proc/{parent}/{name}"
            self.attempt(f"look at the parent's {name}", lambda path=path: _read(path))
        for name in ("cwd", "root", "exe", "fd/1"):
            path = f"/proc/{parent}/{name}"
            self.attempt(f"follow the parent's {name}", lambda path=path: os.readlink(path))
        self.attempt("look at init's environment", lambda: _read("/proc/1/environ"))

    def plant(self, *folders: str) -> None:
        """Leave something that others would run, or trip over."""
        for folder in folders:
            self.attempt(f"make a file in {folder}", lambda folder=folder: Path(folder, "planted").write_text("x"))
            self.attempt(f"make a folder in {folder}", lambda folder=folder: Path(folder, "planted").mkdir())
            self.attempt(f"link in {folder}", lambda folder=folder: Path(folder, "planted").symlink_to("/etc/passwd"))
            self.attempt(f"move to {folder}", lambda folder=folder: self._own_file().rename(Path(folder, "planted")))
        self.attempt("make a device", lambda: os.mknod("device", 0o600 | 0o060000, os.makedev(8, 0)))
        self.attempt("change a module", lambda: open(wire.__file__, "a").close())
        self.attempt("take its bytecode's place", lambda: Path(wire.__file__).with_name("__pycache__").rename("x"))

    def environment(self) -> None:
        self.sink.emit(Log(message=f"environment: {' '.join(sorted(os.environ))}"))
        open_files = [name for name in os.listdir("/proc/self/fd") if int(name) > 2]
        self.sink.emit(Log(message=f"descriptors: {len(open_files)}"))
        self.sink.emit(Log(message=f"folder: {sorted(os.listdir('.'))}"))

    # The network.

    def network(self, port: str) -> None:
        kinds: dict[str, Callable[[], socket.socket]] = {
            "TCP": lambda: socket.create_connection(("127.0.0.1", int(port)), timeout=3),
            "TCP over IPv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_STREAM),
            "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
            "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
            "multipath TCP": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262),
            "a socket in the file system": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_STREAM),
            "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
            "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
            "virtual machines": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
        }
        for name, make in kinds.items():
            self.attempt(name, lambda make=make: make().close())
        self.attempt("io_uring", lambda: _call(425, 8, ctypes.create_string_buffer(120)))

    # Other processes, and the kernel.

    def processes(self) -> None:
        parent = os.getppid()
        self.attempt("signal the parent", lambda: os.kill(parent, signal.SIGTERM))
        self.attempt("signal the parent's group", lambda: os.killpg(os.getpgid(parent), signal.SIGTERM))
        self.attempt("ask for the parent", lambda: os.kill(parent, 0))
        self.attempt("attach to the parent", lambda: _ptrace(_PTRACE_ATTACH, parent))
        self.attempt("seize the parent", lambda: _ptrace(_PTRACE_SEIZE, parent))
        self.attempt("limit the parent", lambda: _call(302, parent, 7, struct.pack("QQ", 3, 3), None))
        self.attempt("a user namespace", lambda: _checked(ctypes.CDLL(None, use_errno=True).unshare(0x10000000)))
        self.attempt("root", lambda: os.setuid(0) if os.getuid() else _refused())
        self.attempt("a root directory", lambda: os.chroot("."))
        self.attempt("a mount", lambda: _call(165, b"none", b".", b"tmpfs", 0, None))

    def bomb(self) -> None:
        """As many processes as it can, which do the same."""
        made = 0
        try:
            while made < 100_000:
                if os.fork() == 0:
                    os.setsid()
                    time.sleep(600)
                    os._exit(0)
                made += 1
        except OSError as error:
            self.sink.emit(Log(message=f"bomb: {made} processes, then {errno.errorcode[error.errno or 0]}"))

    def outlive(self, then: str) -> NoReturn:
        """Leave an orphan without the job's mark, in a session of its own, and crash, or go on."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                code = f"import time; time.sleep({MARK})"
                os.execve(sys.executable, [sys.executable, "-S", "-c", code], {})
            os._exit(0)
        os.wait()
        Path("ready").touch()
        time.sleep(1 if then == "crash" else 600)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError

    # All there is.

    def disk(self, how: str) -> None:
        for number in range(10_000):
            with open(f"full-{number}", "wb", buffering=0) as file:
                if how == "unnamed":
                    kept.append(os.dup(file.fileno()))
                    os.unlink(file.name)
                try:
                    for _ in range(48):
                        file.write(bytes(_MIB))
                except OSError as error:
                    self.sink.emit(Log(message=f"disk: {errno.errorcode[error.errno or 0]}"))
            time.sleep(0.05)

    def memory(self) -> None:
        taken = []
        while True:
            taken.append(bytearray(64 * _MIB))

    def deep(self) -> None:
        """Folders in folders, deeper than a path can name."""
        top = os.getcwd()
        for _ in range(3000):
            os.mkdir("deeper")
            os.chdir("deeper")
        os.chmod(".", 0)
        os.chdir(top)

    def talk(self) -> None:
        """More than a disk is to hold of it."""
        line = b"x" * 65535 + b"\n"
        for _ in range(1200):
            os.write(1, line)

    # Forgeries.

    def say(self, which: str) -> TuneResult | None:
        """Something else than the tuner would say."""
        connection: socket.socket = self.store._remote._connection  # type: ignore[attr-defined]
        fingerprint = self.request.target.fingerprint
        trial = vars(record(1, target_fingerprint=fingerprint))
        messages: dict[str, dict[str, Any]] = {
            "an unknown request": {"do": "drop_tables"},
            "no request": {"hello": "world"},
            "another's records": {"do": "seen", "workload": "workload-1", "target_fingerprint": "f" * 16},
            "an unknown event": {"do": "emit", "events": [{"kind": "state", "data": {"state": "succeeded"}}]},
            "a wrong event": {"do": "emit", "events": [{"kind": "stage", "data": {"stage": "party"}}]},
            "a negative latency": {"do": "add_records", "records": [trial | {"latency_us": -1.0}]},
            "a record of nothing": {"do": "add_records", "records": [trial | {"workload": "unknown"}]},
            "a record of another target": {"do": "add_records", "records": [trial | {"target_fingerprint": "f" * 16}]},
            "too many records": {"do": "add_records", "records": [trial] * 10_001},
            "an unknown outcome": {"do": "succeed", "outcome": "magnificent", "schedules": []},
        }
        self.store.add_workload(workload(1))
        name = which.replace("_", " ")
        if name == "nonsense":
            connection.sendall(os.urandom(4096))
        elif name == "too much":
            connection.sendall(struct.pack("!II", 2**32 - 1, 0))
        elif name == "not a number":
            body = b'{"do":"emit","events":[{"kind":"roofline","data":{"peak_gflops":NaN,"bandwidth_gb_s":1e999}}]}'
            connection.sendall(struct.pack("!II", len(body), 0) + body)
        else:
            wire.send(connection, messages[name])
        wire.receive(connection, most_bytes=_MIB)
        return None

    def bundle(self, which: str) -> TuneResult:
        """A bundle that is none."""
        from tests.service.fake_tuner import finish, write_bundle

        result = finish(self.request, self.sink)
        path, kept = result.bundle, Path("kept")
        match which:
            case "link":
                path.rename(kept)
                path.symlink_to(kept)
            case "outside":
                path.unlink()
                path.symlink_to("/etc/passwd")
            case "pipe":
                path.unlink()
                subprocess.run(["/bin/sh", "-c", f"mkfifo '{path}' || mkdir '{path}'"], check=True)
            case "two_names":
                os.link(path, kept)
            case "missing":
                path.unlink()
            case "nonsense":
                path.write_bytes(os.urandom(4096))
            case "other_target":
                write_bundle(self.request, target={"name": "another"})
            case "other_model":
                write_bundle(self.request, model={"name": "m", "sha256": "0" * 64})
            case "other_files":
                write_bundle(self.request, files={"run.py": {"sha256": "0" * 64}})
            case "impossible":
                write_bundle(self.request, latency={"median_us": -5})
            case "member":
                with tarfile.open(path, "w:gz") as archive:
                    archive.add(os.devnull, arcname="../../../etc/cron.d/x", recursive=False)
            case "header":
                _write_huge_header(path)
            case _:
                raise AssertionError(which)
        return result

    def _own_file(self) -> Path:
        own = Path("own")
        own.touch()
        return own


kept: list[int] = []


def _write_huge_header(path: Path) -> None:
    """An archive whose first header says that 8 GiB of more headers follow, which compress to nothing."""
    import gzip

    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 8 * 1024**3
    with gzip.open(path, "wb") as file:
        file.write(header.tobuf())
        for _ in range(64):
            file.write(bytes(_MIB))


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(1)


def _ptrace(request: int, pid: int) -> None:
    _checked(ctypes.CDLL(None, use_errno=True).ptrace(request, pid, None, None))


def _call(number: int, *arguments: object) -> None:
    _checked(ctypes.CDLL(None, use_errno=True).syscall(number, *arguments))


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def _refused() -> NoReturn:
    raise PermissionError(errno.EPERM, "already root")
