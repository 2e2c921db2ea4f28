"""What is kept of schedules for people: the function before and after, cut where it is too long."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tvm

from tests.schedules import functions
from tests.schedules.building import as_module
from tests.tuner.test_tune import request, run
from tuner import shown_schedules as shown
from tuner.events import ListSink, Log
from tuner.records import MemoryRecordStore


def test_a_job_tells_of_every_task_that_its_network_needs(convolutional_model: Path, tmp_path: Path) -> None:
    result = run(request(convolutional_model, tmp_path / "job"), store=MemoryRecordStore())
    search = result.manifest["search"]
    assert isinstance(search, dict)
    if search["schedules"]:  # of the tuned build, where that is shipped
        assert search["schedules"] == {each["name"]: each["chosen_by"] for each in result.schedules}
    scheduled = [each for each in result.schedules if each["chosen_by"] == "records"]
    assert scheduled, "a job of twelve trials measures something"
    for each in scheduled:
        assert "T.parallel" not in each["before"]["script"]
        assert each["after"]["script"] != each["before"]["script"]
        assert not each["after"]["cut"]
        assert any(line["what"] == "loop" for line in each["nest"])
        assert "layout_rewrite_preproc" not in each["after"]["script"], "weights are reordered ahead of time"
    assert json.loads(json.dumps(result.schedules)) == result.schedules


def test_what_cannot_be_described_costs_no_job(
    convolutional_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(mod: tvm.IRModule) -> str:
        raise tvm.error.InternalError("no printer")

    monkeypatch.setattr(shown, "main_script", broken)
    sink = ListSink()
    result = run(request(convolutional_model, tmp_path / "job", measure="none"), store=MemoryRecordStore(), sink=sink)
    assert result.schedules == []
    logged = [event.message for event in sink.events if isinstance(event, Log)]
    assert any("its schedule cannot be shown: InternalError" in message for message in logged)


def test_long_scripts_are_cut_at_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    mod = as_module(functions.matmul_relu())
    whole = shown._script(mod)
    assert not whole["cut"]
    monkeypatch.setattr(shown, "_LONGEST_SCRIPT", 300)
    cut = shown._script(mod)
    assert cut["cut"]
    assert len(cut["script"]) <= 300
    assert whole["script"].startswith(cut["script"])
    assert cut["script"].endswith("\n")
