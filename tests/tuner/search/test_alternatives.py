from __future__ import annotations

from dataclasses import dataclass

import pytest

from tuner.search.alternatives import (
    Alternative,
    Use,
    calls,
    choose_ways,
    expected_calls,
    most_calls,
    network_us,
    totals_us,
)

DIRECT, WINOGRAD = (Alternative(choice="conv", way=way) for way in ("direct", "winograd"))


@dataclass(frozen=True)
class Part:
    uses: tuple[Use, ...]


def part(alternative: Alternative | None, count: int = 1) -> Part:
    return Part((Use(count=count, alternative=alternative),))


def parts(*, direct_us: float | None, winograd_us: tuple[float | None, ...]) -> list[tuple[Part, float | None]]:
    return [(part(DIRECT, 2), direct_us), *((part(WINOGRAD, 2), each) for each in winograd_us)]


def test_a_network_takes_the_faster_way_of_each_choice() -> None:
    tasks = [(part(None, 3), 10.0), (part(DIRECT, 2), 100.0), (part(WINOGRAD, 2), 20.0), (part(WINOGRAD, 2), 30.0)]
    assert totals_us(tasks) == {"conv": {"direct": 200.0, "winograd": 100.0}}
    assert network_us(tasks) == 130.0
    assert network_us(tasks, {"conv": "direct"}) == 230.0


def test_a_task_may_be_needed_by_several_ways_and_everywhere() -> None:
    rolled, separate = (Alternative(choice="chain", way=way) for way in ("windows 2×1", "direct"))
    shared = Part((Use(count=3), Use(count=2, alternative=DIRECT), Use(count=1, alternative=separate)))
    assert most_calls(shared.uses) == 6
    assert calls(shared, {"conv": "direct", "chain": "direct"}) == 6
    assert calls(shared, {"conv": "winograd", "chain": "direct"}) == 4
    assert calls(shared, {"conv": "winograd", "chain": "windows 2×1"}) == 3
    # Ways of one choice are never taken together.
    assert most_calls([Use(count=2, alternative=rolled), Use(count=5, alternative=separate)]) == 5
    totals = totals_us([(shared, 10.0), (part(WINOGRAD, 1), 50.0), (part(rolled), 12.5)])
    assert totals == {"conv": {"direct": 20.0, "winograd": 50.0}, "chain": {"direct": 10.0, "windows 2×1": 12.5}}
    assert expected_calls(shared, totals, unmeasured=[]) == 6.0
    assert expected_calls(part(rolled), totals, unmeasured=[]) == pytest.approx(0.5)


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
    assert [calls(task, ways) for task, _ in tasks] == [2 * (way == "direct")] + [2 * (way == "winograd")] * len(
        winograd_us
    )


def test_without_the_usual_way_the_fastest_is_chosen() -> None:
    slow, fast = (Alternative(choice="chain", way=way) for way in ("windows 1×1", "windows 2×1"))
    assert choose_ways([(part(slow), 20.0), (part(fast), 10.0)]) == {"chain": "windows 2×1"}


def test_a_way_that_cannot_catch_up_gets_nothing() -> None:
    totals = {"conv": {"direct": 100.0, "winograd": 120.0}}
    assert expected_calls(part(None), totals, unmeasured=[]) == 1.0
    assert expected_calls(part(DIRECT, 3), totals, unmeasured=[]) == 3.0
    assert 0 < expected_calls(part(WINOGRAD), totals, unmeasured=[]) < 1
    far_behind = {"conv": {"direct": 100.0, "winograd": 300.0}}
    assert expected_calls(part(WINOGRAD), far_behind, unmeasured=[]) == 0.0
    assert expected_calls(part(WINOGRAD), far_behind, unmeasured=[WINOGRAD]) == 1.0
