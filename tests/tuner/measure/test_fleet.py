"""Boards over RPC: candidates are timed on all of them, and whatever dies costs its own trial only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tvm
from tvm.script import tirx as T

from tests.tuner.measure.boards import KEY, Boards, boards
from tuner.errors import WorkerError
from tuner.link import host_triple, link_shared
from tuner.measure.fleet import BoardRunner, FleetRunner, NoBoardError
from tuner.measure.jobs import Agreement, ArgumentSpec, Built, Failure, Timed
from tuner.measure.tracker import Board, Fleet, Tracker, TrackerError
from tuner.records import FailureKind

SHAPE = ArgumentSpec(shape=(64,), dtype="float32")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Boards]:
    with boards() as made:
        yield made


def library(folder: Path, name: str, *, loops: int = 1, crash: bool = False) -> Built:
    """Adds one to 64 numbers, so and so often; or writes where it may not."""

    @T.prim_func(s_tir=True)
    def add(a: T.Buffer((64,), "float32"), b: T.Buffer((64,), "float32")):  # type: ignore[valid-type]
        for i in range(64):
            with T.sblock("b"):
                vi = T.axis.spatial(64, i)
                b[vi] = a[vi] + T.float32(1)

    function = add
    if loops > 1 or crash:
        body = f"""
@T.prim_func(s_tir=True)
def add(a: T.Buffer((64,), "float32"), b: T.Buffer((64,), "float32")):
    for n, i in T.grid({loops}, 64):
        with T.sblock("b"):
            vn = T.axis.opaque({loops}, n)
            vi = T.axis.spatial(64, i)
            b[vi{" + 1000000000" if crash else ""}] = T.exp(a[vi]) + T.float32(1)
"""
        function = tvm.script.from_source(body, extra_vars={"T": T})
    target = tvm.target.Target({"kind": "llvm"})
    built = tvm.tirx.build(tvm.IRModule({"main": function.with_attr("global_symbol", "main")}), target=target)
    path = folder / f"{name}.o"
    built.write_to_file(str(path), "o")
    output = folder / f"{name}.so"
    link_shared([path], output, triple=host_triple())
    return Built(library=output, symbol="main", arguments=(SHAPE, SHAPE), decisions=(), trace_json="", cost_s=0.0)


def kinds(answers: list[Timed | Failure]) -> list[str]:
    return [answer.kind.value if isinstance(answer, Failure) else "timed" for answer in answers]


def test_candidates_are_timed_and_compared_on_a_board(fleet: Boards, tmp_path: Path) -> None:
    port = fleet.start()
    fast, slow = library(tmp_path, "fast"), library(tmp_path, "slow", loops=20_000)
    with FleetRunner(fleet.tracker, KEY) as runner:
        first, second = runner.time([fast, slow], best_us=None)
        assert isinstance(first, Timed)
        assert isinstance(second, Timed)
        assert 0 < first.latency_us < second.latency_us
        same = runner.agreement(fast, replace(fast), seed=1)
        assert isinstance(same, Agreement)
        assert (same.max_abs_error, same.max_rel_error) == (0.0, 0.0)
        different = runner.agreement(fast, slow, seed=1)
        assert isinstance(different, Agreement)
        assert different.max_rel_error > 0.1
        assert different.reference_us is not None
        assert same.reference_us is not None
        assert 0 < same.reference_us < different.reference_us
    assert fleet.tracker.fleet().of(KEY) == [Board(key=KEY, host="127.0.0.1", port=port)]


@pytest.mark.slow
def test_a_killed_board_costs_the_trial_that_it_was_measuring(fleet: Boards, tmp_path: Path) -> None:
    lost = fleet.start()
    while len(fleet.processes) < 2:
        fleet.start()
    candidates = [library(tmp_path, f"slow-{number}", loops=2_000_000) for number in range(6)]
    threading.Timer(1.5, fleet.kill, [lost]).start()
    with FleetRunner(fleet.tracker, KEY, make=_impatient) as runner:
        answers = runner.time(candidates, best_us=None)
    assert kinds(answers).count("device_lost") == 1
    assert kinds(answers).count("timed") == 5
    # It comes back when it is started again.
    fleet.start()
    assert len(fleet.tracker.fleet().of(KEY)) == 2


def test_without_any_board_measuring_ends(fleet: Boards, tmp_path: Path) -> None:
    for port in list(fleet.processes):
        fleet.kill(port)
    fleet.wait(lambda known: not known.of(KEY))
    with FleetRunner(fleet.tracker, KEY, patience_s=0.5) as runner, pytest.raises(NoBoardError, match="free within"):
        runner.time([library(tmp_path, "fast")], best_us=None)


def _impatient(tracker: Tracker, key: str, *, session_s: int) -> BoardRunner:
    return BoardRunner(tracker, key, session_s=session_s, back_within_s=2.0)


class ScriptedTracker(Tracker):
    """Two boards that are always there."""

    def fleet(self) -> Fleet:
        return Fleet(boards=tuple(Board(key=KEY, host="h", port=port) for port in (1, 2)), free={KEY: 2})


class ScriptedBoard(BoardRunner):
    """Board 1 is always lost, board 2 measures."""

    taken: list[int]

    def reserve(self, *, timeout_s: float) -> bool:
        held = {1, 2} - set(self.taken)
        if not held:
            return False
        self.board = Board(key=KEY, host="h", port=min(held))
        self.taken.append(self.board.port)
        return True

    def close(self) -> None:
        if self.board is not None and self.board.port in self.taken:
            self.taken.remove(self.board.port)

    def time_most(self, candidates: list[Built], *, best_us: float | None) -> dict[int, Timed | Failure]:
        assert self.board is not None
        if self.board.port == 1:
            self.is_lost = True
            return {0: Failure(kind=FailureKind.DEVICE_LOST, message="gone")}
        return {index: Timed(latency_us=1.0, spread_us=0.0, cost_s=0.0) for index in range(len(candidates))}


def test_a_board_that_fails_again_and_again_is_left_alone_for_a_while() -> None:
    now_s = [0.0]
    ScriptedBoard.taken = []
    candidate = Built(library=Path("x.so"), symbol="main", arguments=(), decisions=(), trace_json="", cost_s=0.0)
    runner = FleetRunner(ScriptedTracker(host="h", port=1), KEY, make=ScriptedBoard, clock=lambda: now_s[0])
    lost = []
    for _ in range(6):
        now_s[0] += 1.0
        lost.append(kinds(runner.time([candidate] * 4, best_us=None)).count("device_lost"))
    assert sum(lost) == 3
    assert lost[-3:] == [0, 0, 0]
    now_s[0] += 200.0
    assert kinds(runner.time([candidate] * 4, best_us=None)).count("device_lost") > 0


@pytest.mark.parametrize("text", ["", "here", ":9190", "here:", "here:x", "here:0", "here:70000"])
def test_addresses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no address of a tracker"):
        Tracker.parse(text)


def test_a_tracker_that_is_not_there_is_named() -> None:
    with pytest.raises(TrackerError, match=r"127\.0\.0\.1:9 cannot be reached") as raised:
        Tracker.parse("127.0.0.1:9").fleet()
    assert isinstance(raised.value, WorkerError)
    assert "tessera devices serve" in raised.value.hint


def test_asking_for_a_board_ends_when_none_is_free(fleet: Boards) -> None:
    started = time.monotonic()
    assert fleet.tracker.request("no such key", timeout_s=0.3) is None
    assert time.monotonic() - started < 5
