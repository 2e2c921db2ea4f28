from __future__ import annotations

from dataclasses import dataclass

import pytest

from tuner.search.alternatives import Alternative, chances, choose_ways, in_use, network_us, totals_us

DIRECT, WINOGRAD = (Alternative(choice="conv", way=way) for way in ("direct", "winograd"))


@dataclass(frozen=True)
class Part:
    alternative: Alternative | None
    weight: int = 1


def parts(*, direct_us: float | None, winograd_us: tuple[float | None, ...]) -> list[tuple[Part, float | None]]:
    return [(Part(DIRECT, 2), direct_us), *((Part(WINOGRAD, 2), each) for each in winograd_us)]


def test_a_network_takes_the_faster_way_of_each_choice() -> None:
    tasks = [(Part(None, 3), 10.0), (Part(DIRECT, 2), 100.0), (Part(WINOGRAD, 2), 20.0), (Part(WINOGRAD, 2), 30.0)]
    assert totals_us(tasks) == {"conv": {"direct": 200.0, "winograd": 100.0}}
    assert network_us(tasks) == 130.0


@pytest.mark.parametrize(
    ("direct_us", "winograd_us", "way"),
    [
        (100.0, (20.0, 30.0), "winograd"),
        (100.0, (60.0, 60.0), "direct"),
        (100.0, (49.0, 50.0), "direct"),  # 1 % is luck
        (100.0, (20.0, None), "direct"),
        (None, (20.0, 30.0), "direct"),
        (100.0, (), "direct"),
    ],
)
def test_the_way_that_is_clearly_faster_is_chosen(
    direct_us: float | None, winograd_us: tuple[float | None, ...], way: str
) -> None:
    tasks = parts(direct_us=direct_us, winograd_us=winograd_us)
    ways = choose_ways(tasks)
    assert ways == {"conv": way}
    assert [in_use(part, ways) for part, _ in tasks] == [way == "direct"] + [way == "winograd"] * len(winograd_us)
    assert in_use(Part(None), ways)


def test_a_way_that_cannot_catch_up_gets_nothing() -> None:
    totals = {"conv": {"direct": 100.0, "winograd": 120.0}}
    assert chances(None, totals, unmeasured=[]) == chances(DIRECT, totals, unmeasured=[]) == 1.0
    assert 0 < chances(WINOGRAD, totals, unmeasured=[]) < 1
    far_behind = {"conv": {"direct": 100.0, "winograd": 300.0}}
    assert chances(WINOGRAD, far_behind, unmeasured=[]) == 0.0
    assert chances(WINOGRAD, far_behind, unmeasured=[WINOGRAD]) == 1.0
