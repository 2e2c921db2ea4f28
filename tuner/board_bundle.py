"""``python -m tuner.board_bundle TRACKER KEY FOLDER [OPTIONS]``: an unpacked bundle's run.py, its network on a board.

Files and samples stay here; the module is uploaded, loaded, run, timed and profiled on a board of the fleet. Options
are those of run.py.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from tuner.contender import die_with_parent
from tuner.measure.tracker import Tracker


def main() -> int:
    tracker, key, folder, *options = sys.argv[1:]
    die_with_parent()
    sys.path.insert(0, folder)
    run: Any = importlib.import_module("run")
    if not hasattr(run.Network, "function"):
        sys.exit("This bundle is of an earlier version of Tessera: its run.py runs on the board itself only.")
    from tuner.board_contender import BoardSession

    board = BoardSession(Tracker.parse(tracker), key)
    run.Network = _network_on(board, run)
    sys.argv = ["run.py", *options]
    return int(run.main())


def _network_on(board: Any, run: Any) -> type[Any]:
    """The ``Network`` of that run.py, on a board."""
    from tvm.runtime.vm import VirtualMachine

    class OnBoard(run.Network):
        def __init__(self) -> None:
            board.session.upload(str(run.MODULE), target=run.MODULE.name)
            self.device = board.device
            self.module = board.session.load_module(run.MODULE.name)
            self.machine = VirtualMachine(self.module, self.device)

        def main(self, *arguments: Any) -> Any:
            self.machine.set_input("main", *arguments)
            self.machine.invoke_stateful("main")
            return self.machine.get_outputs("main")

        def time_us(self, arguments: Sequence[Any]) -> float:
            self.machine.set_input("main", *arguments)
            evaluator = self.machine.time_evaluator("invoke_stateful", self.device, number=1, repeat=1)
            return float(evaluator("main").results[0]) * 1e6

    return OnBoard


if __name__ == "__main__":
    sys.exit(main())
