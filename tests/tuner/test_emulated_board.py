"""A whole job on boards of another architecture: tuned on them, cross-linked, and run there as a person would."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import IN_CI
from tests.tuner.measure import emulated
from tests.tuner.measure.boards import boards
from tuner import tune as pipeline
from tuner.board_setup import board_requirements
from tuner.bundle import unpack_bundle
from tuner.cost_model_store import MemoryCostModelStore
from tuner.events import Event, ListSink, TrialMeasured
from tuner.measure.tracker import Tracker
from tuner.records import FailureKind, MemoryRecordStore
from tuner.request import Budget, TuneRequest
from tuner.targets import find_target

KEY = "raspberry-pi-4"
TRIALS = 12


@pytest.fixture(scope="module")
def root() -> Path:
    """The board's root file system, kept between runs in the user's cache."""
    if (reason := emulated.missing()) is not None:
        if IN_CI and "not installed" in reason:
            pytest.fail(reason)
        pytest.skip(reason)
    requirements = board_requirements()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = hashlib.sha256(" ".join(requirements).encode()).hexdigest()[:12]
    made = cache / "tessera-tests" / f"arm64-{version}"
    emulated.make_root(made, requirements)
    return made


class Killer(ListSink):
    """Kills a board as soon as a trial was measured."""

    def __init__(self, kill: Any) -> None:
        super().__init__()
        self._kill = kill
        self._killed = threading.Event()

    def emit(self, *events: Event) -> None:
        super().emit(*events)
        if any(isinstance(event, TrialMeasured) for event in events) and not self._killed.is_set():
            self._killed.set()
            self._kill()


def run_on_a_board(bundle: Path, tracker: Tracker) -> str:
    """What ``tessera run --device`` prints."""
    command = [sys.executable, "-m", "service", "run", str(bundle), "--device", KEY, "--profile"]
    environment = {**os.environ, "TESSERA_TRACKER": str(tracker)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_model_is_tuned_on_two_boards_one_of_which_dies(
    root: Path, convolutional_model: Path, tmp_path: Path
) -> None:
    target = replace(find_target(KEY), threads=1)
    store = MemoryRecordStore()
    with boards() as fleet:
        ports = [fleet.start(key=KEY, root=root) for _ in range(2)]
        request = TuneRequest(
            model_path=convolutional_model,
            model_name="tiny",
            target=target,
            work_dir=tmp_path,
            budget=Budget(trials=TRIALS),
            fleet=fleet.tracker,
        )
        sink = Killer(lambda: fleet.kill(ports[0]))
        result = pipeline.tune(request, store=store, models=MemoryCostModelStore(), sink=sink)
        assert len(fleet.tracker.fleet().of(KEY)) == 1
        fleet.start(key=KEY, root=root)
        assert len(fleet.tracker.fleet().of(KEY)) == 2
        profile = run_on_a_board(result.bundle, fleet.tracker)
        functions = profile[profile.index("\nfunction ") :].splitlines()[2:-2]
        # which of its ways a convolution goes is the search's to say, and an emulated board's timings scatter
        assert any("conv2d" in row or "winograd" in row for row in functions), profile
        assert "OK: tiny on raspberry-pi-4 agrees with ONNX Runtime" in profile
    assert len(store.own()) == TRIALS
    assert sum(record.failure is FailureKind.DEVICE_LOST for record in store.own()) <= 1
    assert sum(record.latency_us is not None for record in store.own()) >= TRIALS // 2
    manifest: Any = result.manifest
    assert manifest["numerics"]["passed"]
    assert manifest["numerics"]["checked_on"] == KEY
    assert manifest["latency"]["median_us"] > 0

    # the board's root outlives the run: only a folder of its own is surely empty
    with tempfile.TemporaryDirectory(dir=root / "opt", prefix="bundle-") as folder:
        unpack_bundle(result.bundle, Path(folder))
        inside = f"/opt/{Path(folder).name}/run.py"
        done = subprocess.run(
            emulated.inside(root, "/usr/bin/python3.11", inside, "--json"), capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["ok"]
