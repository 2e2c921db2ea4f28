"""``python -m tests.tuner.spinner``: a contender whose thread spins for 0.3 s after a run, as engines' threads do."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from tuner.contender import Network, serve

_SPINS_S = 0.3


class Spinning(Network):
    def __init__(self) -> None:
        self._until = 0.0
        self._woken = threading.Event()
        threading.Thread(target=self._spin, daemon=True).start()

    def prepare(self, arrays: Sequence[np.ndarray]) -> Any:
        return None

    def launch(self, prepared: Any) -> Any:
        self._until = time.monotonic() + _SPINS_S
        self._woken.set()

    def fetch(self, returned: Any) -> list[np.ndarray]:
        return []

    def _spin(self) -> None:
        while self._woken.wait():
            self._woken.clear()
            while time.monotonic() < self._until:
                pass


if __name__ == "__main__":
    sys.exit(serve(Spinning))
