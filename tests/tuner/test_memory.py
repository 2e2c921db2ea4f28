"""Memory of a run: what is planned is what is allocated, and limits are kept or refused."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import onnx
import pytest

from schedules.graph.pipeline import prepare
from tests.schedules import networks
from tests.schedules.networks import Network
from tuner.compile import build_scheduled, schedule_network
from tuner.cost_model_store import MemoryCostModelStore
from tuner.errors import MemoryLimitError
from tuner.events import ListSink
from tuner.front import MemoryNeeds
from tuner.high_water import growth_bytes
from tuner.memory import measured_peak_bytes
from tuner.records import MemoryRecordStore
from tuner.request import Budget, TuneRequest
from tuner.targets import host_target
from tuner.tune import tune
from tuner.ways import Ways

TOLERANCE_BYTES, TOLERANCE = 64 * 1024, 0.02


def agree(planned: int, measured: int) -> bool:
    return abs(planned - measured) <= max(TOLERANCE_BYTES, TOLERANCE * planned)


def wide(*, side: int = 64) -> onnx.ModelProto:
    """An inverted residual: eight channels between, before and after which there are few."""
    n = Network(seed=9)
    t = n.node("Relu", n.conv("x", inputs=8, outputs=64, kernel=1))
    t = n.node("Relu", n.conv(t, inputs=64, outputs=64, groups=64))
    return n.model(n.conv(t, inputs=64, outputs=8, kernel=1), shape=(1, 8, side, side))


def test_growth_is_what_is_held_at_most_at_a_time() -> None:
    library = ctypes.CDLL(None)
    library.malloc.argtypes, library.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    library.free.argtypes = [ctypes.c_void_p]

    def run() -> None:
        first, second = library.malloc(1_000_000), library.malloc(500_000)
        library.free(first)
        third = library.malloc(200_000)
        library.free(second)
        library.free(third)

    growth = growth_bytes(run)
    assert growth is not None
    assert abs(growth - 1_500_000) <= 3 * 4096


@pytest.mark.parametrize("chosen", ["usual", "smallest"])
def test_a_run_allocates_what_was_planned(chosen: str, tmp_path: Path) -> None:
    model, spec = wide(), host_target()
    ways = Ways(prepare(networks.imported(model)), spec, every_chain=True)
    scheduled = schedule_network(ways.fused(ways.smallest_plans if chosen == "smallest" else {}), {}, spec=spec)
    build_scheduled(scheduled, tmp_path / "module.so", spec=spec)
    sample = {"x": np.ones((1, 8, 64, 64), dtype=np.float32)}
    measured = measured_peak_bytes(tmp_path / "module.so", sample, ["x"], threads=spec.threads)
    assert scheduled.memory is not None
    assert measured is not None
    assert agree(scheduled.memory.peak_bytes, measured), (scheduled.memory, measured)
    tensor = 4 * 64 * 64 * 64
    assert scheduled.memory.peak_bytes > 2 * tensor if chosen == "usual" else measured < tensor


def request(model: Path, work_dir: Path, limit: int | None) -> TuneRequest:
    return TuneRequest(
        model_path=model,
        model_name="wide",
        target=host_target(),
        work_dir=work_dir,
        budget=Budget(trials=64),
        memory_limit_bytes=limit,
    )


@pytest.mark.slow
def test_a_limit_is_kept_and_the_bundle_says_so(tmp_path: Path) -> None:
    onnx.save(wide(), tmp_path / "wide.onnx")
    limit = 1_000_000
    result = tune(
        request(tmp_path / "wide.onnx", tmp_path / "job", limit),
        store=MemoryRecordStore(),
        models=MemoryCostModelStore(),
        sink=ListSink(),
    )
    memory = result.manifest["memory"]
    assert isinstance(memory, dict)
    assert memory["limit_bytes"] == limit
    assert memory["planned_peak_bytes"] <= limit
    assert memory["measured_peak_bytes"] <= limit
    # Of whatever schedule won: some leave a thread without work, and with it the workspace that is planned for it.
    assert memory["measured_peak_bytes"] <= memory["planned_peak_bytes"] + TOLERANCE_BYTES
    assert memory["planned_peak_bytes"] <= 1.34 * memory["measured_peak_bytes"]
    assert result.manifest["numerics"]["passed"]  # type: ignore[index]
    (choice,) = result.manifest["search"]["choices"].values() or [None]  # type: ignore[index]
    assert choice is None or choice["way"].startswith("windows")
    # Empty where the machine was too busy to measure every task of any way.
    assert min((point["peak_bytes"] for point in memory["front"]), default=0) <= limit


def test_an_infeasible_limit_is_refused_with_the_least_that_is_possible(tmp_path: Path) -> None:
    onnx.save(wide(), tmp_path / "wide.onnx")
    needs = MemoryNeeds(Ways(prepare(networks.imported(wide())), host_target(), every_chain=True))
    with pytest.raises(MemoryLimitError) as refused:
        tune(
            request(tmp_path / "wide.onnx", tmp_path / "job", 10_000),
            store=MemoryRecordStore(),
            models=MemoryCostModelStore(),
            sink=ListSink(),
        )
    assert refused.value.details["least_bytes"] == needs.least_bytes
    assert str(needs.least_bytes) in refused.value.message
