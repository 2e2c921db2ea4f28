"""The parent's side of `tuner.board_contender`: the networks of a job on one board of a fleet."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tuner.errors import WorkerError
from tuner.measure.tracker import Tracker
from tuner.network_process import Program, RunnableNetwork
from tuner.spinning import UNSEEN_S

_LOADED_WITHIN_S = 600.0


class BoardProcess:
    """One board for one stage of a job; other jobs wait meanwhile."""

    def __init__(self, tracker: Tracker, key: str) -> None:
        self._program = Program(["tuner.board_contender", str(tracker), key], name=f"a board of {key}")

    def open(self, path: Path, *, name: str | None = None) -> RunnableNetwork:
        """Upload a module to the board and load it there. Raises `WorkerError`."""
        return _BoardNetwork(self._program, path, name=name or path.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._program.close()


class _BoardNetwork(RunnableNetwork):
    def __init__(self, program: Program, path: Path, *, name: str) -> None:
        self.name = name
        self._program = program
        self._path = path
        self._may_spin = False
        answer = self._ask({"load": True}, timeout_s=_LOADED_WITHIN_S)
        self.load_s = float(str(answer["load_s"]))

    def close(self) -> None:
        with contextlib.suppress(WorkerError):  # the board may be gone: then so is what was loaded there
            self._ask({"unload": True}, timeout_s=_LOADED_WITHIN_S)

    def rest(self) -> None:
        if self._may_spin:
            time.sleep(UNSEEN_S)
        self._may_spin = False

    @property
    def _folder(self) -> Path:
        return Path(self._program.folder.name)

    def _ask(self, request: dict[str, object], *, timeout_s: float) -> dict[str, object]:
        self._may_spin = True
        return self._program.ask({"network": str(self._path), **request}, timeout_s=timeout_s)
