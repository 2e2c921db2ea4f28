"""Figures, verdicts, forms and drawings of the dashboard, without a browser."""

from __future__ import annotations

import logging
import math
import re
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.datastructures import MultiDict

from service.api import problems
from service.dashboard import figures, ranking, ranking_pictures, tiles, verdict
from service.dashboard.expectations import MemoryRange, budget_note, memory_range
from service.dashboard.pages import install_error_pages
from service.dashboard.start_form import StartForm, parse_shape
from service.errors import Invalid
from service.queries.jobs import EarlierLimits
from service.schemas.cost_models import HeldOutPointSchema
from service.schemas.jobs import JobSchema

BASELINE = {"latency_us": 2140.0, "spread_us": 31.0, "onnxruntime_us": 455.0}


def job(**fields: Any) -> JobSchema:
    common = {
        "id": "j",
        "model_id": "m",
        "model_name": "net",
        "target": "host",
        "state": "running",
        "budget": {"trials": 64, "time_limit_s": None},
        "created_at": datetime.now(UTC),
    }
    return JobSchema.model_validate({**common, **fields})


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (1, "1.00"), (1.8449, "1.84"), (9.996, "10.0"), (99.96, "100"), (1234.5, "1230"), (0.012345, "0.0123")],
)
def test_three_significant_digits(value: float, shown: str) -> None:
    assert figures.significant(value) == shown


@pytest.mark.parametrize(
    ("latency_us", "spread_us", "shown"),
    [
        (412.3, 6.04, "412 ± 6 µs"),
        (41.23, 0.61, "41.2 ± 0.6 µs"),
        (9100, None, "9100 µs"),
        (43_400, 6900, "43.4 ± 6.9 ms"),
        (2.5e6, None, "2.50 s"),
        (None, None, "–"),
    ],
)
def test_latency_has_its_unit_and_its_spread_in_the_same_digits(
    latency_us: float | None, spread_us: float | None, shown: str
) -> None:
    assert figures.latency(latency_us, spread_us) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (0.42, "0.42 s"),
        (59.6, "1 min"),
        (95, "1 min 35 s"),
        (3600, "1 h"),
        (5430, "1 h 30 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert figures.duration(seconds) == shown.replace(" ", "\N{NO-BREAK SPACE}")


def test_times_are_relative_and_exact() -> None:
    now = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    assert figures.ago(now - timedelta(seconds=5), now) == "just now"
    assert figures.ago(now - timedelta(minutes=61), now) == "1 h ago"
    assert figures.exact("2026-11-23T12:00:00") == "2026-11-23 12:00:00 UTC"


def test_untuned_never_stands_without_onnxruntime() -> None:
    answer = verdict.how_much_faster(
        job(state="succeeded", outcome="improved", best={"latency_us": 412, "measured": True}, baseline=BASELINE)
    )
    assert answer.text == "1.10× faster than ONNX Runtime"
    assert "untuned 2140 µs, ONNX Runtime 455 µs" in answer.note


def test_slower_is_said_as_slower() -> None:
    answer = verdict.how_much_faster(job(best={"latency_us": 910, "measured": False}, baseline=BASELINE))
    assert answer.text == "2.00× slower than ONNX Runtime"
    assert answer.note.startswith("Estimated 910 µs")


def test_nothing_measured_is_not_a_figure() -> None:
    assert verdict.how_much_faster(job()).text == "Not known yet"
    assert verdict.how_much_faster(job(state="succeeded", outcome="unmeasured")).text == "Not measured"
    failed = job(state="failed", error={"code": "verification_failed", "message": "", "hint": ""})
    assert verdict.is_it_right(failed, None).text == "No"


def test_what_was_checked_elsewhere_says_where() -> None:
    done = job(
        state="succeeded",
        target="raspberry-pi-4",
        result={"outcome": "unmeasured", "max_rel_error": 1e-6, "max_abs_error": 1e-6},
    )
    elsewhere = verdict.is_it_right(done, {"numerics": {"checked_on": "host"}})
    assert elsewhere.text == "Verified"
    assert "Checked on host" in elsewhere.note
    for manifest in (None, {}, {"numerics": {}}, {"numerics": {"checked_on": "raspberry-pi-4"}}):
        assert "Checked on" not in verdict.is_it_right(done, manifest).note


def test_stages_are_marked() -> None:
    marks = dict(verdict.stage_marks(job(stage="tune")))
    assert (marks["extract"], marks["tune"], marks["build"]) == ("done", "now", "")
    assert dict(verdict.stage_marks(job(state="failed", stage="build")))["build"] == "broken"
    assert set(dict(verdict.stage_marks(job(state="succeeded", stage="package"))).values()) == {"done"}


KNOBS = {
    "tiles": {"n": [1, 1, 1, 1], "h": [7, 2, 4, 1], "w": [7, 1, 8, 1], "ci": [8, 4]},
    "unroll": 16,
    "parallel": None,
}


@pytest.mark.parametrize("labels", [False, True])
def test_drawing_nests_one_rectangle_a_level(labels: bool) -> None:
    drawing = ElementTree.fromstring(tiles.diagram(KNOBS, labels=labels))
    assert drawing.attrib["aria-label"] == "Tiles, outermost first: h 7·2·4·1, w 7·1·8·1, ci 8·4"
    nested = [each for each in drawing.iter("rect") if each.attrib["class"].startswith("tile")]
    widths = [float(each.attrib["width"]) for each in nested]
    heights = [float(each.attrib["height"]) for each in nested]
    assert len(nested) == 4
    assert widths == sorted(widths, reverse=True)
    assert heights == sorted(heights, reverse=True)
    assert len(set(widths)) == 4, "levels of equal extent stay apart"
    assert len([each for each in drawing.iter("rect") if each.attrib["class"] == "bar"]) == 1


@pytest.mark.parametrize(
    "knobs",
    [
        None,
        {},
        {"tiles": None},
        {"tiles": {"h": "x", "w": []}},
        {"tiles": {"h": [1, 1]}},
        {"unroll": 16},
        {"tiles": [1, 2]},
    ],
)
def test_knobs_without_tiles_have_no_drawing(knobs: dict[str, object] | None) -> None:
    assert tiles.diagram(knobs) == ""


def test_names_of_axes_cannot_break_out_of_the_drawing() -> None:
    drawing = tiles.diagram({"tiles": {'"><script>': [4, 4]}}, labels=True)
    assert "<script>" not in drawing
    ElementTree.fromstring(drawing)


def test_other_knobs_read_as_a_line() -> None:
    assert (
        tiles.other_knobs({**KNOBS, "vector_width": 16, "compute_at": {"pad": "root"}}) == "unroll 16, vector width 16"
    )


def points(*places: tuple[float, float]) -> list[HeldOutPointSchema]:
    """Held-out points that were measured and predicted so many times slower than the best of their workload."""
    return [
        HeldOutPointSchema(workload=0, measured_log2=-math.log2(measured), predicted_log2=-math.log2(predicted))
        for measured, predicted in places
    ]


def test_figures_of_a_cost_model_are_words_with_their_base() -> None:
    told = ranking.answers({"pairwise_accuracy": 0.9114, "top_1": 0.934, "top_5": 1.0})
    assert [each.text for each in told] == ["91.1 % right", "93.4 % of the best", "100 % of the best"]
    assert "Guessing gives 50 %" in told[0].note
    assert ranking.answers({}) == []


def test_held_out_points_lie_where_they_were_measured_and_predicted() -> None:
    drawing = ElementTree.fromstring(ranking_pictures.scatter(points((1, 1), (4, 4), (2, 8), (16, 0.8))))
    dots = [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in drawing.iter("circle")]
    best, fourfold, thought_slower, thought_faster = dots
    assert best[0] < thought_slower[0] < fourfold[0] < thought_faster[0]
    assert thought_slower[1] < fourfold[1] < best[1] < thought_faster[1]
    diagonal = next(each for each in drawing.iter("path") if each.attrib["class"] == "diagonal")
    left, base, right, top = (float(number) for number in re.findall(r"[\d.]+", diagonal.attrib["d"]))
    for x, y in (best, fourfold):
        assert (x - left) / (right - left) == pytest.approx((base - y) / (base - top), abs=0.001)
    assert all(left <= x <= right and top <= y <= base for x, y in dots)
    texts = [each.text for each in drawing.iter("text")]
    assert texts.count("1×") == texts.count("16×") == 2
    assert "Measured latency ÷ the workload’s best" in texts
    assert next(drawing.iter("title")).text == "Workload 1: measured 1.00×, predicted 1.00×"


def test_no_points_and_one_version_have_no_picture() -> None:
    assert ranking_pictures.scatter([]) == ""
    assert ranking_pictures.trend([(1, 0.9)]) == ""
    assert "style=" not in ranking_pictures.scatter(points((1, 1))) + ranking_pictures.trend([(1, 0.4), (3, 0.9)])


def test_trend_rises_with_accuracy() -> None:
    drawing = ElementTree.fromstring(ranking_pictures.trend([(2, 0.7), (3, 0.9), (5, 0.8)]))
    line = next(each for each in drawing.iter("path")).attrib["d"]
    heights = [float(number) for number in re.findall(r" ([\d.]+)", line)]
    assert heights[1] < heights[2] < heights[0]
    assert drawing.attrib["aria-label"] == "Pairwise accuracy: version 2 70.0 %, version 3 90.0 %, version 5 80.0 %"


def test_bands_hold_every_point_once() -> None:
    told = ranking.bands(points((1, 1.5), (1.1, 0.9), (1.1, 1.1), (2, 3), (64, 20)))
    assert [(each.measured, each.count, each.median) for each in told] == [
        ("1 to 1.25×", 3, "1.10×"),
        ("2 to 4×", 1, "3.00×"),
        ("8× and more", 1, "20.0×"),
    ]
    assert told[0].middle_half == "1.00 to 1.30×"


@pytest.mark.parametrize("text", ["1x3x8x8", "1×3×8×8", "1, 3, 8, 8", " 1 3 8 8 "])
def test_shapes_are_read_as_people_write_them(text: str) -> None:
    assert parse_shape("x", text) == [1, 3, 8, 8]


@pytest.mark.parametrize("text", ["", "0x3", "axb", "-1x2", "1.5x2"])
def test_bad_shapes_are_refused_with_their_input(text: str) -> None:
    with pytest.raises(Invalid, match="not a shape for input 'x'"):
        parse_shape("x", text)


def test_form_makes_the_request_of_its_budget() -> None:
    fields = {"target": "host", "budget": "time", "minutes": "0.5", "trials": "9", "seed": "3", "shape:x": "2x4"}
    request = StartForm.read(MultiDict(fields)).request("model", target="host")
    assert (request.trials, request.time_limit_s, request.seed) == (None, 30.0, 3)
    assert request.input_shapes == {"x": [2, 4]}
    both = StartForm.read(MultiDict(fields | {"budget": "both"})).request("model", target="host")
    assert (both.trials, both.time_limit_s) == (9, 30.0)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("1.5 MiB", 3 * 2**19), ("512kib", 2**19), ("2", 2**21), ("1 MB", 10**6), ("900 B", 900), ("", None)],
)
def test_a_memory_limit_is_read_with_its_unit(text: str, size_bytes: int | None) -> None:
    request = StartForm.read(MultiDict({"memory": text})).request("model", target="host")
    assert request.memory_limit_bytes == size_bytes


MEMORY = {"least_memory_bytes": 1_000_000, "usual_memory_bytes": 8_000_000, "safe_memory_limit_bytes": 1_040_000}


def test_limits_that_tensors_alone_would_just_keep_are_outside_of_the_range() -> None:
    found = memory_range(MEMORY, EarlierLimits())
    assert isinstance(found, MemoryRange)
    assert (found.least_bytes, found.usual_bytes) == (1_050_000, 8_000_000)
    assert "down to 977 KiB, may fail" in found.note
    with_workspaces = memory_range({**MEMORY, "safe_memory_limit_bytes": 3_000_000}, EarlierLimits())
    assert isinstance(with_workspaces, MemoryRange)
    assert with_workspaces.least_bytes == 3_000_000


def test_what_earlier_jobs_found_out_moves_the_range() -> None:
    refused = memory_range(MEMORY, EarlierLimits(needed_bytes=2_000_000))
    kept = memory_range(MEMORY, EarlierLimits(needed_bytes=2_000_000, kept_bytes=1_500_000))
    assert isinstance(refused, MemoryRange)
    assert isinstance(kept, MemoryRange)
    assert (refused.least_bytes, kept.least_bytes) == (2_100_000, 1_500_000)
    assert "could not do with less than 1.91 MiB" in refused.note
    assert "kept within 1.43 MiB" in kept.note
    # What was needed less than the estimate, and what was kept above it, changes nothing.
    assert memory_range(MEMORY, EarlierLimits(needed_bytes=900_000, kept_bytes=3_000_000)) == memory_range(
        MEMORY, EarlierLimits()
    )


@pytest.mark.parametrize(
    ("report", "earlier", "why"),
    [
        (None, EarlierLimits(), "The check finds out"),
        ({"least_memory_bytes": None, "usual_memory_bytes": None}, EarlierLimits(), "shapes of some tensors"),
        ({**MEMORY, "usual_memory_bytes": 1_000_000}, EarlierLimits(), "save nothing"),
        ({**MEMORY, "usual_memory_bytes": 1_100_000}, EarlierLimits(), "less than 1.00 MiB"),
        (MEMORY, EarlierLimits(needed_bytes=7_500_000), "less than 7.51 MiB"),
        ({**MEMORY, "safe_memory_limit_bytes": 9_000_000}, EarlierLimits(), "down to 977 KiB"),
    ],
)
def test_why_there_is_no_range_is_said(report: dict[str, Any] | None, earlier: EarlierLimits, why: str) -> None:
    told = memory_range(report, earlier)
    assert isinstance(told, str)
    assert why in told


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        ({"trials": "512"}, "512 trials: about 1 min 42 s."),
        ({"trials": "1"}, "1 trial: about 1 s."),
        ({"budget": "time", "minutes": "10"}, "10 min: about 3\u202f000 trials."),
        ({"budget": "both", "minutes": "1"}, "512 trials: about 1 min 42 s. The time ends first."),
        ({"budget": "both", "minutes": "10"}, "512 trials: about 1 min 42 s. The trials end first."),
        ({"trials": "many"}, ""),
    ],
)
def test_a_budget_says_how_long_it_lasts(fields: dict[str, str], note: str) -> None:
    assert budget_note(StartForm.read(MultiDict(fields)), 0.2).replace("\N{NO-BREAK SPACE}", " ") == note
    assert budget_note(StartForm.read(MultiDict(fields)), 0.0) == ""


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"trials": "many"}, "Trials"),
        ({"trials": "-1"}, "Trials"),
        ({"seed": "-1"}, "Seed"),
        ({"trials": "1.5"}, "Trials"),
        ({"trials": ""}, "Trials"),
        ({"budget": "time", "minutes": "0"}, "Minutes"),
        ({"budget": "time", "minutes": "nan"}, "Minutes"),
        ({"budget": "both", "minutes": "43201"}, "Minutes: '43201'"),
        ({"memory": "a lot"}, "Memory limit"),
        ({"memory": "0"}, "Memory limit"),
    ],
)
def test_form_names_the_field_that_is_wrong(fields: dict[str, str], named: str) -> None:
    with pytest.raises(Invalid, match=named):
        StartForm.read(MultiDict(fields)).request("model", target="host")


def test_browsers_get_a_page_where_nothing_is_and_programs_a_problem() -> None:
    app = FastAPI()
    problems.install(app, logging.getLogger("tests"))
    install_error_pages(app)
    client = TestClient(app)
    page = client.get("/nothing", headers={"Accept": "text/html"})
    assert page.status_code == 404
    assert "There is nothing at /nothing." in page.text
    for path, accept in (("/nothing", "*/*"), ("/api/v1/nothing", "text/html")):
        answer = client.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"] == "application/problem+json"
