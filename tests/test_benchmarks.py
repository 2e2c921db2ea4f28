"""The benchmarks' arithmetic, what they look at, and their page; what they measure is not for tests."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import endurance, models, openvino_contender, warm
from benchmarks.command_line import Tuned
from benchmarks.networks import NETWORKS, chosen_networks
from benchmarks.peak import gflops
from benchmarks.pinning import on_cores
from benchmarks.rows import keep_row, provenance, read_rows
from service.schemas.events import EventSchema
from tuner.compare import Contender, compare
from tuner.frontend.tensors import TensorSpec
from tuner.targets import host_target

ROOT = Path(__file__).resolve().parents[1]
ENGINE = """
import sys
from tuner.contender import Network, serve

class Doubling(Network):
    def prepare(self, arrays):
        return arrays

    def launch(self, prepared):
        return [2 * array for array in prepared]

    def fetch(self, returned):
        return returned

sys.exit(serve(Doubling))
"""


def test_every_benchmark_has_its_place_on_the_page_and_no_other() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    scripts = {
        path.name
        for path in (ROOT / "benchmarks").glob("*.py")
        if f"python benchmarks/{path.name}" in path.read_text().split("from __future__")[0]
    }
    assert len(scripts) >= 8
    assert scripts == set(re.findall(r"^## `(\w+\.py)`$", page, re.MULTILINE))
    assert scripts == set(re.findall(r"^\| \[`(\w+\.py)`\]", page, re.MULTILINE))
    used = set(re.findall(r"^(?:\.venv/bin/)?python benchmarks/(\w+\.py)", page, re.MULTILINE))
    assert scripts == used


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("models", models.summary([])),
        ("warm", warm.summary([])),
    ],
)
def test_the_keys_of_the_last_line_are_on_the_page(name: str, keys: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    section = page[page.index(f"## `{name}.py`") :].split("\n## ")[0]
    assert {key for key in keys if f"`{key}`" not in section} == set()


def test_ratios_are_theirs_over_ours() -> None:
    both = models.ratios({"tuned": 100.0, "onnxruntime": 150.0, "openvino": 90.0})
    assert both == {"vs_onnxruntime": 1.5, "vs_best_peer": 0.9}
    assert models.ratios({"tuned": 100.0, "onnxruntime": 150.0})["vs_best_peer"] == 1.5
    rows = [{"vs_onnxruntime": 2.0, "vs_best_peer": 0.5}, {"vs_onnxruntime": 0.5, "vs_best_peer": 0.5}]
    summary = models.summary(rows)
    assert summary["geomean_vs_onnxruntime"] == 1.0
    assert summary["geomean_vs_best_peer"] == 0.5
    assert summary["min_vs_onnxruntime"] == 0.5


def test_without_openvino_its_column_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openvino_contender, "is_installed", lambda: False)
    bundle = models.Unpacked(module=tmp_path, inputs=[], sample={}, expected={})
    assert "pip install openvino" in (models.openvino_problem(tmp_path, bundle, threads=1) or "")
    row = dict.fromkeys(("untuned_us", "vs_onnxruntime", "vs_best_peer", "percent_of_peak", "search_seconds"), 1.0)
    row |= {f"{engine}_{what}": 2000.0 for engine in ("tuned", "onnxruntime") for what in ("us", "spread_us")}
    line = models.table([row | {"network": "x", "threads": 2, "trials": 3, "openvino_us": None}]).splitlines()[-1]
    assert line.count("2.00 ± 2.00") == 2
    assert "–" in line


def test_another_engine_is_timed_by_the_same_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "doubling_engine.py").write_text(ENGINE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    contenders = {"doubling": Contender(path=tmp_path, program="doubling_engine")}
    spec = TensorSpec(name="x", shape=(4,), dtype="float32")
    timed = compare(contenders, [spec], {"x": np.ones(4, np.float32)}, threads=1, time_budget_s=1)
    assert timed["doubling"].runs > 10
    assert timed["doubling"].median_us < 10_000


def events(course: list[tuple[float, float]], *, recalled: int = 0) -> list[EventSchema]:
    """A job whose search begins after 10 s and expects these latencies after so many seconds more."""
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    told: list[tuple[float, str, dict[str, Any]]] = [
        (0, "stage", {"stage": "extract"}),
        (5, "tasks", {"tasks": [{"key": "a"}, {"key": "b"}]}),
        (10, "stage", {"stage": "tune"}),
        *((10.0, "recall", {"task": "a"}) for _ in range(recalled)),
        *((10 + seconds, "trial", {"estimated_us": estimated_us}) for seconds, estimated_us in course),
        (500, "stage", {"stage": "build"}),
        (501, "progress", {"estimated_us": 1.0}),
    ]
    return [
        EventSchema(id=index, kind=kind, data=data, created_at=begin + timedelta(seconds=seconds))
        for index, (seconds, kind, data) in enumerate(told)
    ]


def test_the_wall_ratio_counts_the_search_until_the_cold_ones_last_latency() -> None:
    cold = warm.course_of(events([(1, 900.0), (40, 500.0), (60, 500.0)]))
    assert cold.final_us == 500.0
    assert cold.tasks == 2
    figures = warm.figures(cold, warm.course_of(events([(0, 700.0), (6, 505.0), (10, 480.0)], recalled=1)))
    assert figures["cold_seconds"] == 40
    assert figures["cold_search_seconds"] == 60
    assert figures["warm_seconds"] == 10
    assert figures["wall_ratio"] == 0.25
    assert figures["wall_ratio_within_2_percent"] == 0.15
    assert figures["recalled_tasks"] == 1
    never = warm.figures(cold, warm.course_of(events([(1, 700.0), (90, 600.0)])))
    assert never["wall_ratio"] is None
    assert warm.summary([figures, never])["wall_ratio"] is None
    assert warm.summary([figures, figures, never])["wall_ratio"] == 0.25


def test_networks_are_tuned_once_for_all_that_begin_with_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tuned: list[str] = []

    def tune(model: Path, out: Path, data_dir: Path, *options: str) -> Tuned:
        data_dir.mkdir(parents=True, exist_ok=True)
        with (data_dir / "jobs").open("a") as file:
            file.write(model.stem)
        assert options == ("--trials", "8")
        tuned.append(model.stem)
        return Tuned(job_id=model.stem, bundle=out, manifest={})

    def write_network(name: str, folder: Path) -> Path:
        path = folder / f"{name}.onnx"
        path.touch()
        return path

    monkeypatch.setattr(warm, "tune", tune)
    monkeypatch.setattr(warm, "write_network", write_network)
    histories = warm.Histories(tmp_path, trials=8)
    networks = "abcd"
    for name in networks:
        others = warm.others_first(name, networks)
        assert sorted([*others, name]) == list(networks)
        cold_data, cold = histories.after((name,))
        warm_data, _ = histories.after((*others, name))
        assert ((cold_data / "jobs").read_text(), cold.job_id) == (name, name)
        assert (warm_data / "jobs").read_text() == "".join(others) + name
    assert len(tuned) == 14


def sample(trials: int, parent_mib: float, *, stage: str = "tune") -> endurance.Sample:
    return endurance.Sample(
        seconds=trials / 5,
        trials=trials,
        stage=stage,
        parent_mib=parent_mib,
        fork_server_mib=0,
        workers_mib=0,
        tree_mib=900.0,
        processes=5,
    )


def test_the_slope_is_of_the_search_without_its_begin_and_without_what_follows() -> None:
    samples = [sample(trials, 100.0 + trials) for trials in range(0, 200, 10)]
    samples += [sample(trials, 300.0 + 0.005 * trials) for trials in range(200, 2001, 10)]
    samples += [sample(2000, 800.0), sample(2000, 1600.0, stage="build")]
    assert endurance.slope_mib(samples, "parent_mib") == pytest.approx(5.0)
    assert endurance.slope_mib(samples, "tree_mib") == pytest.approx(0.0)
    assert endurance.slope_mib(samples[:25], "parent_mib") is None
    assert endurance.slope_mib([], "parent_mib") is None
    assert len(endurance.table(samples).splitlines()) == 21


def test_processes_and_files_that_are_left_behind_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endurance, "_GRACE_S", 0.2)
    assert endurance.orphans_of("nobody") == []
    environment = {**os.environ, "ENDURANCE_RUN": "somebody"}
    waiting = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env=environment)
    try:
        [found] = endurance.orphans_of("somebody")
        assert found.startswith(f"{waiting.pid}: ")
    finally:
        waiting.communicate()
    temporary, work = tmp_path / "tmp", tmp_path / "data" / "jobs" / "1" / "work"
    for folder in (temporary, work.parent):
        folder.mkdir(parents=True)
    (work.parent / "job.log").touch()
    assert endurance.leftovers_in(temporary, tmp_path / "data") == []
    (temporary / "forgotten").touch()
    work.mkdir()
    assert endurance.leftovers_in(temporary, tmp_path / "data") == [str(temporary / "forgotten"), str(work)]


def test_fewer_cores_hold_for_children_and_only_meanwhile() -> None:
    before = os.sched_getaffinity(0)
    assert host_target().threads == len(before)
    with on_cores(1):
        count = "import os; print(len(os.sched_getaffinity(0)))"
        assert subprocess.run([sys.executable, "-c", count], capture_output=True, check=True).stdout.strip() == b"1"
        assert host_target().threads == 1
    assert os.sched_getaffinity(0) == before
    assert host_target().threads == len(before)
    with pytest.raises(SystemExit, match="cores"), on_cores(10_000):
        pass


def test_rows_are_kept_with_where_they_come_from(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_rows(path) == read_rows(None) == []
    for number in (1, 2):
        keep_row(path, {"number": number, **provenance()})
    keep_row(None, {})
    rows = read_rows(path)
    assert [row["number"] for row in rows] == [1, 2]
    assert "core" in rows[0]["machine"]
    assert json.dumps(rows)


def test_networks_are_chosen_by_name() -> None:
    assert chosen_networks(",".join(NETWORKS)) == list(NETWORKS)
    with pytest.raises(SystemExit, match="resnet19"):
        chosen_networks("resnet18,resnet19")


def test_the_peak_kernel_is_fused_and_stays_in_registers() -> None:
    """Through memory, or with the multiplication hoisted out of the loop, the rate would be another order."""
    assert 4 < gflops(12) < 1000
