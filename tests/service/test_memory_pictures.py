"""The pictures of a job's memory: what they show, what they say to those who cannot see them, and that they are well
formed."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from schedules.windows.describe import described
from service.dashboard.memory import shown_memory
from service.dashboard.memory_pictures import front_chart, timeline_chart, windows_drawing
from service.schemas.artifacts import Front, FrontPoint
from tests.schedules.windows.chains import inverted_residual, planned

POINTS = [
    FrontPoint(name="untuned", latency_us=900.0, peak_bytes=None),
    FrontPoint(name="tuned", latency_us=310.0, spread_us=4.0, peak_bytes=2_500_000, shipped=True),
    FrontPoint(
        name="2 parts in other ways", latency_us=None, estimated_us=400.0, peak_bytes=1_000_000, ways={"a": "b"}
    ),
    FrontPoint(name="the usual way throughout", latency_us=None, estimated_us=300.0, peak_bytes=4_000_000),
]


def elements(picture: str, name: str) -> list[ElementTree.Element]:
    return [each for each in ElementTree.fromstring(picture).iter() if each.get("class") == name]


def texts(picture: str) -> str:
    return " ".join("".join(each.itertext()) for each in ElementTree.fromstring(picture).iter("text"))


def labels(picture: str) -> list[ElementTree.Element]:
    return [each for each in ElementTree.fromstring(picture).iter() if each.tag.endswith("text")]


def manifest(*, strips: int) -> dict[str, Any]:
    chain = inverted_residual(28, 28)
    part = described(chain, planned(chain, strips=strips))
    return {
        "memory": {
            "planned_peak_bytes": 1000,
            "measured_peak_bytes": 1010,
            "limit_bytes": None,
            "timeline": [{"function": "a", "bytes": 700}, {"function": "b", "bytes": 800}],
            "usual_timeline": [{"function": "a", "bytes": 5600}],
            "windows": [{"chain": "28×28×8→28×28×8", "way": "windows", "count": 2, "parts": [part]}],
        }
    }


def test_the_front_shows_every_known_way_the_limit_and_the_build() -> None:
    picture = front_chart(POINTS, 3_000_000)
    assert len(elements(picture, "dot")) == 2
    (limit,), (chosen,) = elements(picture, "limit"), elements(picture, "chosen")
    left = float(str(limit.get("d"))[1:].split()[0])
    assert float(str(chosen.get("cx"))) < left
    assert "limit 2.86 MiB" in texts(picture)
    places = [float(str(dot.get("cx"))) for dot in elements(picture, "dot")]
    assert places == sorted(places)
    assert not elements(front_chart(POINTS, None), "limit")


def test_a_front_of_one_way_is_no_picture() -> None:
    assert front_chart(POINTS[:3], None) == ""
    assert front_chart([], 1) == ""


def test_the_timeline_names_both_peaks() -> None:
    picture = timeline_chart([100, 5600, 20], [700, 800])
    assert "without windows, at most 5.47 KiB" in texts(picture)
    assert "this build, at most 800 B" in texts(picture)
    level = {str(text.text): float(str(text.get("y"))) for text in labels(timeline_chart([800, 100], [800, 700]))}
    assert abs(level["this build, at most 800 B"] - level["without windows, at most 800 B"]) >= 14
    same = timeline_chart([700, 800], [700, 800])
    assert not elements(same, "usual")
    assert timeline_chart([], []) == ""


@pytest.mark.parametrize("strips", [1, 2, 4])
def test_windows_are_drawn_with_the_rows_that_are_kept(strips: int) -> None:
    chain = inverted_residual(28, 28)
    picture = windows_drawing(described(chain, planned(chain, strips=strips)))
    assert len(elements(picture, "whole")) == 2
    assert len(elements(picture, "gone")) == 2
    assert len(elements(picture, "band")) == 2 * strips
    assert len(elements(picture, "seam")) == 4 * (strips - 1)
    assert "3 rows" in texts(picture)
    assert "depthwise" in texts(picture)
    assert f"in {strips} strip" in str(ElementTree.fromstring(picture).get("aria-label"))


@pytest.mark.parametrize("tiles", [1, 2, 4])
def test_windows_of_tiles_are_as_wide_as_a_tile(tiles: int) -> None:
    chain = inverted_residual(28, 28)
    picture = windows_drawing(described(chain, planned(chain, tiles=tiles)))
    whole, band = (float(elements(picture, name)[0].get("width", "0")) for name in ("whole", "band"))
    assert band == pytest.approx(whole / tiles)
    assert len(elements(picture, "seam")) == 4 * (tiles - 1)
    assert (f"of {tiles} tiles" in str(ElementTree.fromstring(picture).get("aria-label"))) == (tiles > 1)


def test_pictures_stay_inside_of_their_frames() -> None:
    chain = inverted_residual(28, 28)
    for picture in (
        front_chart(POINTS, 9_000_000),
        timeline_chart([9, 1], [2, 3]),
        windows_drawing(described(chain, planned(chain))),
    ):
        width, height = (float(each) for each in str(ElementTree.fromstring(picture).get("viewBox")).split()[2:])
        for attribute, most in (("x", width), ("cx", width), ("y", height), ("cy", height)):
            values = [float(each) for each in re.findall(rf' {attribute}="(-?[\d.]+)"', picture)]
            assert all(0 <= value <= most for value in values)


def test_what_is_computed_twice_is_said() -> None:
    front = Front(job_id="j", points=[])
    whole, halves = shown_memory(manifest(strips=1), front), shown_memory(manifest(strips=2), front)
    assert whole is not None
    assert halves is not None
    assert whole.chains[0].extra_macs == 0
    assert 0.01 < halves.chains[0].extra_macs < 0.2
    assert halves.chains[0].ring_bytes == 2 * whole.chains[0].ring_bytes
    assert (whole.usual_alive_bytes, whole.alive_bytes) == (5600, 800)


@pytest.mark.parametrize("older", [None, {}, {"memory": {}}, {"memory": None}])
def test_bundles_without_memory_show_nothing(older: dict[str, Any] | None) -> None:
    assert shown_memory(older, Front(job_id="j", points=[])) is None
