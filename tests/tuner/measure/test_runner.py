from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.measure.serves import run_serve
from tuner.measure.jobs import Built, Failure, Timed
from tuner.measure.runner import LocalRunner
from tuner.records import FailureKind


def built(name: str) -> Built:
    library = Path(f"/nowhere/{name}.so")
    return Built(library=library, symbol="main_0", arguments=(), decisions=(), trace_json="", cost_s=0.0)


def latencies(answers: list[Timed | Failure]) -> list[float | FailureKind]:
    return [answer.latency_us if isinstance(answer, Timed) else answer.kind for answer in answers]


def test_every_candidate_is_timed_in_order() -> None:
    with LocalRunner(threads=1, serve=run_serve) as runner:
        answers = runner.time([built("a-30"), built("b-10"), built("c-20")], best_us=None)
    assert latencies(answers) == [30.0, 10.0, 20.0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("segfault-1", FailureKind.RUN_ERROR),
        ("hang-1", FailureKind.RUN_TIMEOUT),
        ("later-segfault-1", FailureKind.RUN_ERROR),
        ("later-hang-1", FailureKind.RUN_TIMEOUT),
    ],
)
def test_a_candidate_that_kills_the_runner_costs_only_itself(name: str, kind: FailureKind) -> None:
    with LocalRunner(threads=1, serve=run_serve, timeout_s=1.0) as runner:
        answers = runner.time([built("a-30"), built(name), built("c-20")], best_us=None)
        assert latencies(answers) == [30.0, kind, 20.0]
        assert latencies(runner.time([built("d-5")], best_us=None)) == [5.0]


def test_nothing_to_time() -> None:
    with LocalRunner(threads=1, serve=run_serve) as runner:
        assert runner.time([], best_us=None) == []


def test_the_slow_sit_out_and_still_have_a_latency() -> None:
    with LocalRunner(threads=1, serve=run_serve) as runner:
        answers = runner.time([built("second-exit-100"), built("b-10"), built("c-11")], best_us=10.0)
    # the first one would end its child at its second round, which it never gets
    assert latencies(answers) == [100.0, 10.0, 11.0]
