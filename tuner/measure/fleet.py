"""Measuring on the boards of a fleet: all free boards of a key in parallel, each for one batch at a time.

A board that disappears costs the trial that it was measuring; what else it had is measured on another one. One that
fails again and again is left alone for a while (quarantine). A board is held for a batch and then given back, so that
jobs share it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from tuner.errors import WorkerError
from tuner.measure.child import Child
from tuner.measure.jobs import Agreement, Built, Failure, Timed
from tuner.measure.runner import ChildRunner
from tuner.measure.tracker import Board, Tracker
from tuner.records import FailureKind

# Boards are slower than this machine, and everything goes through the network first.
_TIMEOUT_S = 30.0
# What a session may take beside its candidates; a candidate that hangs holds its board until then.
_SESSION_S, _CANDIDATE_S = 60, 5
# A server whose process was taken down by a candidate is started again by its loop, and imports TVM anew.
_BACK_WITHIN_S = 25.0
_POLL_S = 0.5
_PATIENCE_S = 60.0
_QUARANTINE_AFTER, _QUARANTINE_S = 3, 120.0


class NoBoardError(WorkerError):
    """No board of the key is there any more."""

    code = "no_device"
    hint = "Look at: tessera devices list. Start the board's server again; the job resumes from its records."


class BoardRunner(ChildRunner):
    """One board for one batch. ``is_lost`` when it is gone."""

    def __init__(
        self,
        tracker: Tracker,
        key: str,
        *,
        session_s: int,
        timeout_s: float = _TIMEOUT_S,
        back_within_s: float = _BACK_WITHIN_S,
        serve: Callable[..., None] | None = None,
    ) -> None:
        super().__init__(self._connected, timeout_s=timeout_s)
        self._tracker = tracker
        self._key = key
        self._session_s = session_s
        self._back_within_s = back_within_s
        self._serve = serve
        self._reserved: Child | None = None
        self.board: Board | None = None

    def reserve(self, *, timeout_s: float) -> bool:
        """Take a free board; False when there was none for so long."""
        lease = self._tracker.request(self._key, timeout_s=timeout_s)
        if lease is None:
            return False
        self.board = lease.board
        serve = self._serve or _board_worker()
        self._reserved = Child(serve, lease.board.host, lease.board.port, lease.match_key, self._session_s)
        return True

    def _connected(self) -> Child:
        if self._reserved is None and not self.reserve(timeout_s=self._session_s + self._back_within_s):
            raise NoBoardError(f"No board of {self._key} is free any more.")
        child, self._reserved = self._reserved, None
        assert child is not None
        return child

    def close(self) -> None:
        super().close()
        if self._reserved is not None:
            self._reserved.kill()
            self._reserved = None

    def _lost(self, message: str) -> Failure:
        """Of a board that is back soon only the server's process was gone: the candidate's doing."""
        deadline = time.monotonic() + self._back_within_s
        while self.board is not None and time.monotonic() < deadline:
            if self.board in self._tracker.fleet().boards:
                return Failure(kind=FailureKind.RUN_ERROR, message=f"the board's server died of it: {message}")
            time.sleep(_POLL_S)
        return super()._lost(message)


class FleetRunner:
    """A `Runner` over all boards that have joined under a key.

    Raises `NoBoardError` when no board of the key is free within ``patience_s``, and `TrackerError` when the tracker is
    gone.
    """

    def __init__(
        self,
        tracker: Tracker,
        key: str,
        *,
        patience_s: float = _PATIENCE_S,
        make: Callable[..., BoardRunner] = BoardRunner,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tracker = tracker
        self._key = key
        self._patience_s = patience_s
        self._make = make
        self._clock = clock
        self._failures: dict[Board, int] = {}
        self._quarantined_until: dict[Board, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Nothing is held between batches."""

    def time(self, candidates: list[Built], *, best_us: float | None) -> list[Timed | Failure]:
        """Time candidates, spread over the boards that are free; see `ChildRunner.time`."""
        answers: dict[int, Timed | Failure] = {}
        while left := [index for index in range(len(candidates)) if index not in answers]:
            boards = self._free_boards(at_most=len(left), candidates=len(left))
            shares = [left[number :: len(boards)] for number in range(len(boards))]
            with ThreadPoolExecutor(len(boards)) as pool:
                timed = pool.map(
                    lambda pair: pair[0].time_most([candidates[index] for index in pair[1]], best_us=best_us),
                    zip(boards, shares, strict=True),
                )
                for share, found in zip(shares, timed, strict=True):
                    answers |= {share[place]: answer for place, answer in found.items()}
            self._give_back(boards)
        return [answers[index] for index in range(len(candidates))]

    def agreement(self, library: Built, reference: Built, *, seed: int) -> Agreement | Failure:
        """Run both on one board and compare; on another one where that gets lost."""
        while True:
            boards = self._free_boards(at_most=1, candidates=2)
            answer = boards[0].agreement(library, reference, seed=seed)
            self._give_back(boards)
            if not (isinstance(answer, Failure) and answer.kind is FailureKind.DEVICE_LOST):
                return answer

    def _free_boards(self, *, at_most: int, candidates: int) -> list[BoardRunner]:
        """All that are free, but one at least: waits for it. Shunned boards are given back."""
        deadline = self._clock() + self._patience_s
        session_s = _SESSION_S + _CANDIDATE_S * candidates
        while True:
            known = self._tracker.fleet().of(self._key)
            wanted = min(at_most, sum(not self._is_shunned(board) for board in known))
            taken: list[BoardRunner] = []
            shunned: list[BoardRunner] = []
            while len(taken) < wanted and len(taken) + len(shunned) < len(known):
                runner = self._make(self._tracker, self._key, session_s=session_s)
                if not runner.reserve(timeout_s=_POLL_S):
                    break
                (shunned if self._is_shunned(runner.board) else taken).append(runner)
            for runner in shunned:
                runner.close()
            if taken:
                return taken
            if self._clock() >= deadline:
                raise NoBoardError(f"No board of {self._key} was free within {self._patience_s:.0f} s.")
            time.sleep(_POLL_S)

    def _give_back(self, boards: Sequence[BoardRunner]) -> None:
        for runner in boards:
            runner.close()
            if runner.board is None:
                continue
            count = self._failures.get(runner.board, 0) + 1 if runner.is_lost else 0
            self._failures[runner.board] = count
            if count >= _QUARANTINE_AFTER:
                self._quarantined_until[runner.board] = self._clock() + _QUARANTINE_S
                self._failures[runner.board] = 0

    def _is_shunned(self, board: Board | None) -> bool:
        return board is not None and self._clock() < self._quarantined_until.get(board, 0.0)


def _board_worker() -> Callable[..., Any]:
    from tuner.measure.board_worker import serve  # loads TVM: not where only the watchdog is tested

    return serve
