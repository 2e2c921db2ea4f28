"""Targets: the catalogue is whole, files describe targets, and this machine knows which it can run."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from tuner.errors import TargetError
from tuner.targets import (
    TargetSpec,
    can_measure,
    can_run,
    checked_on,
    find_target,
    host_target,
    list_targets,
    no_device,
    read_targets,
)

NAMES = [spec.name for spec in list_targets()]


def test_host_comes_first_and_names_are_different() -> None:
    assert NAMES[0] == "host"
    assert len(set(NAMES)) == len(NAMES)
    for name in ("raspberry-pi-4", "graviton3", "apple-m1", "jetson-nano", "riscv64", "windows-x86-64", "x86-64-avx2"):
        assert name in NAMES
    assert len({spec.fingerprint for spec in list_targets()}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_targets_are_whole(name: str) -> None:
    spec = find_target(name)
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name)
    assert spec.description
    assert spec.device
    processor: Any = spec.tvm["host"] if spec.is_gpu else spec.tvm
    if not spec.is_gpu:
        assert spec.tvm["num-cores"] == spec.threads
        assert {"l1", "l2"} <= spec.cache_bytes.keys()
    assert spec.processor
    assert spec.vector_bits >= 128
    assert TargetSpec.from_dict(spec.as_dict()) == spec
    if name != "host":
        arch = spec.triple.partition("-")[0]
        assert arch.replace("aarch64", "a").replace("arm", "a")[0] == str(processor["mtriple"])[0]


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("host", "module.so"),
        ("raspberry-pi-4", "module.so"),
        ("apple-m1", "module.dylib"),
        ("windows-x86-64", "module.tar"),
        ("riscv64", "module.tar"),
    ],
)
def test_a_bundle_has_what_its_system_can_load(name: str, module: str) -> None:
    assert find_target(name).module == module


def test_code_is_checked_where_it_runs_or_else_here() -> None:
    host = host_target()
    assert checked_on(host) is host
    weaker = replace(host, name="weaker", features=host.features[:1], threads=1)
    assert can_run(weaker)
    assert checked_on(weaker) is weaker
    assert can_measure(weaker)
    wider = replace(weaker, threads=host.threads + 1)
    assert checked_on(wider) is wider
    assert not can_measure(wider)
    for other in (
        replace(host, name="other", triple="riscv64-linux-gnu", threads=64),
        replace(host, name="newer", features=(*host.features, "a_feature_of_the_future"), threads=64),
    ):
        assert not can_run(other)
        assert checked_on(other) == host
    assert checked_on(replace(host, triple="riscv64-linux-gnu", threads=1)).threads == 1


def test_unknown_targets_are_named_with_those_that_exist() -> None:
    with pytest.raises(TargetError) as raised:
        find_target("toaster")
    assert raised.value.code == "unknown_target"
    assert "raspberry-pi-4" in raised.value.hint


def test_the_choices_without_a_device_are_named() -> None:
    error = no_device(find_target("raspberry-pi-4"))
    assert error.code == "no_device"
    assert "none" in error.hint
    assert error.details["choices"] == ["measure: none", "target: host"]


def test_a_file_describes_targets_of_ones_own() -> None:
    (spec,) = read_targets(
        """
        [my-board]
        triple = "aarch64-linux-gnu"
        tvm = { kind = "llvm", mtriple = "aarch64-linux-gnu", mcpu = "cortex-a55", num-cores = 2 }
        threads = 2
        """
    )
    assert (spec.name, spec.device, spec.threads, spec.module) == ("my-board", "my-board", 2, "module.so")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[board", "Expected ']'"),
        ("threads = 2", "outside of a table"),
        ("[board]\ntriple = 'aarch64-linux-gnu'", "missing 2 required"),
        ("[board]\ntriple = 'a-linux-gnu'\nthreads = 1\ntvm = {}\ncolour = 'red'", "no field colour"),
    ],
)
def test_files_that_describe_no_targets_are_refused(text: str, reason: str) -> None:
    with pytest.raises(TargetError, match=re.escape(reason)) as raised:
        read_targets(text)
    assert raised.value.code == "invalid_target"
