"""Linking with what the machine has: a compiler, only zig, or nothing."""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import te

from tuner import link
from tuner.errors import BuildError
from tuner.link import find_linker, host_triple, link_shared


@pytest.fixture(scope="module")
def adder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An object file with a function that adds e^a and b, so that the C library's expf may be asked for."""
    a = te.placeholder((64,), name="a")
    b = te.placeholder((64,), name="b")
    c = te.compute((64,), lambda i: te.exp(a[i]) + b[i], name="c")
    module = tvm.compile(te.create_prim_func([a, b, c]), target=tvm.target.Target({"kind": "llvm"}))
    path = tmp_path_factory.mktemp("link") / "adder.o"
    module.mod.write_to_file(str(path))
    return path


def run(library: Path) -> np.ndarray:
    arguments = [tvm.runtime.tensor(np.full(64, value, np.float32)) for value in (0.0, 2.5, 0.0)]
    tvm.runtime.load_module(str(library))["main"](*arguments)
    return arguments[2].numpy()


@pytest.mark.parametrize("fast", [False, True])
def test_the_host_linker_makes_a_loadable_library(adder: Path, tmp_path: Path, fast: bool) -> None:
    output = tmp_path / "adder.so"
    link_shared([adder], output, triple=host_triple(), fast=fast)
    np.testing.assert_array_equal(run(output), np.full(64, 3.5, np.float32))
    assert [path.name for path in tmp_path.iterdir()] == ["adder.so"]


@pytest.mark.parametrize("fast", [False, True])
def test_a_machine_without_a_compiler_links_too(
    adder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setenv("PATH", "")
    assert find_linker(host_triple(), fast=fast).name.startswith("zig")
    output = tmp_path / "adder.so"
    link_shared([adder], output, triple=host_triple(), fast=fast)
    np.testing.assert_array_equal(run(output), np.full(64, 3.5, np.float32))


def test_candidates_get_the_same_functions_of_the_c_library_as_a_shipped_module(adder: Path, tmp_path: Path) -> None:
    """A reference without a version would be bound to glibc's oldest `expf`, which takes twice as long."""
    versions = []
    for fast in (False, True):
        output = tmp_path / f"{fast}.so"
        link_shared([adder], output, triple=host_triple(), fast=fast)
        versions.append(set(re.findall(rb"GLIBC_[0-9.]+", output.read_bytes())))
    if platform.libc_ver()[0] == "glibc":
        assert b"GLIBC_2.27" in versions[0]
    assert versions[1] == versions[0]


def test_another_triple_is_linked_by_zig_even_where_there_is_a_compiler() -> None:
    other = "aarch64-linux-gnu" if host_triple().startswith("x86_64") else "x86_64-linux-gnu"
    linker = find_linker(other)
    assert linker.name == "zig cc"
    assert other in linker.command


def test_nothing_to_link_with_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(link, "_zig", lambda: None)
    with pytest.raises(BuildError) as raised:
        find_linker(host_triple())
    assert raised.value.code == "linker_missing"
    assert "pip install ziglang" in raised.value.hint
    assert "gcc" in raised.value.hint


def test_a_failed_link_leaves_no_file_and_shows_the_message(tmp_path: Path) -> None:
    broken = tmp_path / "broken.o"
    broken.write_bytes(b"this is not an object file")
    output = tmp_path / "broken.so"
    with pytest.raises(BuildError) as raised:
        link_shared([broken], output, triple=host_triple())
    assert raised.value.code == "link_failed"
    assert "broken.o" in str(raised.value.details["message"])
    assert [path.name for path in tmp_path.iterdir()] == ["broken.o"]


def test_a_linker_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*arguments: object, **options: object) -> None:
        raise subprocess.TimeoutExpired(cmd="ld", timeout=1)

    monkeypatch.setattr(subprocess, "run", hang)
    with pytest.raises(BuildError, match="did not finish"):
        link_shared([tmp_path / "a.o"], tmp_path / "a.so", triple=host_triple())


def test_zig_gets_a_cache_where_there_is_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("a home that is no folder")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("ZIG_GLOBAL_CACHE_DIR", raising=False)
    monkeypatch.setenv("HOME", str(blocked))
    monkeypatch.setattr(link.tempfile, "gettempdir", lambda: str(tmp_path))
    assert link._environment()["ZIG_GLOBAL_CACHE_DIR"].startswith(str(tmp_path / "tessera-"))
