"""Building for machines other than this one: the code is theirs, the schedules are chosen and checked."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.headers import header
from tuner import tune as pipeline
from tuner.bundle import verify_bundle
from tuner.cost_model_store import MemoryCostModelStore
from tuner.errors import TargetError
from tuner.events import ListSink
from tuner.records import MemoryRecordStore, Record
from tuner.request import Budget, TuneRequest, TuneResult
from tuner.targets import TargetSpec, find_target


def build(
    target: TargetSpec, model: Path, work_dir: Path, *, records: Sequence[Record] = (), **changes: Any
) -> TuneResult:
    work_dir.mkdir()
    settings: dict[str, Any] = {"measure": "none"} | changes
    request = TuneRequest(model_path=model, model_name="tiny", target=target, work_dir=work_dir, **settings)
    store = MemoryRecordStore(earlier=list(records))
    return pipeline.tune(request, store=store, models=MemoryCostModelStore(), sink=ListSink())


def module(result: TuneResult) -> bytes:
    with tarfile.open(result.bundle) as archive:
        stream = archive.extractfile(str(result.manifest["module"]))
        assert stream is not None
        return stream.read()


def test_a_library_for_a_board(convolutional_model: Path, tmp_path: Path) -> None:
    result = build(find_target("raspberry-pi-4"), convolutional_model, tmp_path / "job")
    manifest: Any = result.manifest
    assert result.outcome == "unmeasured"
    assert result.bundle.name == "tiny-raspberry-pi-4.tar.gz"
    assert header(module(result)) == "ELF 64 aarch64"
    assert manifest["numerics"]["passed"]
    assert manifest["numerics"]["checked_on"] == "host"
    assert set(manifest["search"]["schedules"].values()) == {"analytic"}
    assert manifest["latency"] is manifest["onnxruntime"] is manifest["memory"]["measured_peak_bytes"] is None
    checked = verify_bundle(result.bundle)
    assert (checked.ok, checked.result) == (True, None)


def test_object_files_for_what_has_no_runtime(convolutional_model: Path, tmp_path: Path) -> None:
    results = [build(find_target("riscv64"), convolutional_model, tmp_path / name) for name in ("first", "second")]
    with tarfile.open(fileobj=io.BytesIO(module(results[0]))) as objects:
        names = objects.getnames()
        assert names == [f"{number}.o" for number in range(len(names))]
        for name in names:
            stream = objects.extractfile(name)
            assert stream is not None
            assert header(stream.read(20)) == "ELF 64 riscv"
    assert module(results[0]) == module(results[1])


def test_records_of_the_target_are_used_and_checked_here(convolutional_model: Path, tmp_path: Path) -> None:
    board, host = find_target("riscv64"), find_target("host")
    store = MemoryRecordStore()
    same_vectors = replace(host, vector_bits=board.vector_bits)
    (tmp_path / "host").mkdir()
    request = TuneRequest(
        model_path=convolutional_model,
        model_name="tiny",
        target=same_vectors,
        work_dir=tmp_path / "host",
        budget=Budget(trials=8),
    )
    pipeline.tune(request, store=store, models=MemoryCostModelStore(), sink=ListSink())
    records = [replace(record, target_fingerprint=board.fingerprint) for record in store.own()]
    manifest: Any = build(board, convolutional_model, tmp_path / "board", records=records).manifest
    assert "records" in manifest["search"]["schedules"].values()
    assert manifest["numerics"]["passed"]


def test_measuring_without_a_device_is_refused(convolutional_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError) as raised:
        build(find_target("riscv64"), convolutional_model, tmp_path / "job", measure="device")
    assert raised.value.code == "no_device"
