"""The boards that can measure, as TVM's tracker tells of them, and those that it told of before."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from datetime import datetime

from service.database.base import now
from tuner.measure.tracker import Board, Fleet, Tracker, TrackerError
from tuner.targets import TargetSpec, can_measure

_FRESH_S = 1.0
# A tracker that is not there may take seconds to say so, and who asks waits.
_FRESH_AFTER_PROBLEM_S = 10.0


@dataclass(frozen=True, kw_only=True)
class SeenBoard:
    """A board with its ``state``: ``idle``, ``busy`` (all boards of its key are), ``online`` (some of them are), or
    ``lost``."""

    board: Board
    state: str
    last_seen: datetime


class FleetView:
    """What is known of the fleet; without a tracker nothing is. It asks once a second at most, less often where nothing
    answered."""

    def __init__(self, tracker: Tracker | None) -> None:
        self.tracker = tracker
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._fleet = Fleet(boards=(), free={})
        self._problem: str | None = None
        self._seen: dict[Board, datetime] = {}

    def boards(self) -> list[SeenBoard]:
        """All boards since the server was started, those that are there first."""
        with self._lock:
            self._look()
            found = [
                SeenBoard(board=board, state=self._state(board), last_seen=seen) for board, seen in self._seen.items()
            ]
        return sorted(found, key=lambda each: (each.state == "lost", each.board))

    def waiting_for(self, spec: TargetSpec) -> str | None:
        """Why a job that is measured on a target cannot start; None where something can measure it."""
        if can_measure(spec):
            return None
        if spec.is_gpu:
            return f"a device for {spec.name}: GPUs are built for, and not measured"
        if self.tracker is None:
            return f"a device for {spec.name}: no tracker is set (TESSERA_TRACKER)"
        with self._lock:
            self._look()
            if self._problem is not None:
                return f"the tracker at {self.tracker}: {self._problem}"
            joined = self._fleet.of(spec.name)
        return None if joined else f"a board of {spec.name} to join the tracker at {self.tracker}"

    def has_board(self, spec: TargetSpec) -> bool:
        """Whether a board of the target has joined."""
        with self._lock:
            self._look()
            return bool(self._fleet.of(spec.name))

    def _look(self) -> None:
        fresh_s = _FRESH_S if self._problem is None else _FRESH_AFTER_PROBLEM_S
        if self.tracker is None or time.monotonic() - self._asked_at < fresh_s:
            return
        try:
            self._fleet, self._problem = self.tracker.fleet(), None
        except TrackerError as error:
            self._fleet, self._problem = Fleet(boards=(), free={}), error.message
        self._asked_at = time.monotonic()
        self._seen |= dict.fromkeys(self._fleet.boards, now())

    def _state(self, board: Board) -> str:
        if board not in self._fleet.boards:
            return "lost"
        free, total = self._fleet.free.get(board.key, 0), len(self._fleet.of(board.key))
        return "busy" if free == 0 else "idle" if free >= total else "online"
