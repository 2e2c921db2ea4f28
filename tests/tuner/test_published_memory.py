"""MobileNetV2-0.35 at 144×144 against the points that msf-CNN (NeurIPS 2025) published for it: elements that are alive
at most, the network's input not counted, and multiplications. Planned, on one thread; no search is needed for that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from benchmarks.networks import write_network
from schedules.graph.pipeline import prepare
from tests.tuner.test_ways import spec
from tuner.front import MemoryNeeds
from tuner.frontend.convert import import_model
from tuner.search.alternatives import USUAL_WAY
from tuner.ways import Ways

_USUAL_ELEMENTS = 194_400


class Network:
    def __init__(self, path: Path) -> None:
        imported = import_model(path, {})
        self._macs = imported.preflight.flops / 2
        self.ways = Ways(prepare(imported.module), spec(threads=1), every_chain=True)
        self._needs = MemoryNeeds(self.ways)
        # Multiplications stand for the latency of ways.
        self._extra = {
            choice: {way: self._extra_macs(choice, way) for way in peaks} for choice, peaks in self._needs.peaks.items()
        }

    def fewest_macs(self, elements: int) -> tuple[int, float]:
        """Elements and multiplications (÷ those of the network) of the ways with the fewest of these that hold no more
        than so many elements."""
        output_bytes = 4 * 1000
        ways = self._needs.fastest_within(4 * elements + output_bytes, self._extra)
        return self.elements(ways), 1 + sum(self._extra[choice][way] for choice, way in ways.items()) / self._macs

    def elements(self, ways: Mapping[str, str]) -> int:
        return max(size for _, size in self._needs.timeline(ways)) // 4

    def _extra_macs(self, choice: str, way: str) -> float:
        described: Any = self.ways.windows({choice: way}) if way != USUAL_WAY else []
        return float(
            sum(each["count"] * (part["computed_macs"] - part["macs"]) for each in described for part in each["parts"])
        )


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return Network(write_network("mobilenet_v2_0.35_144", tmp_path_factory.mktemp("network")))


def test_the_usual_form_takes_what_was_published(network: Network) -> None:
    assert network.elements({}) == _USUAL_ELEMENTS


@pytest.mark.parametrize(
    ("elements", "macs"),
    [
        (28_000, 1.0),  # published: 181,000 at 1.00, 68,000 at 1.10
        (25_800, 1.005),  # 25,800 at 1.25
        (21_400, 1.02),  # 21,400 at 1.30
        (19_500, 1.036),
    ],
)
def test_windows_take_less_than_what_was_published(network: Network, elements: int, macs: float) -> None:
    held, ratio = network.fewest_macs(elements)
    assert held <= elements
    assert 1.0 <= ratio <= macs
