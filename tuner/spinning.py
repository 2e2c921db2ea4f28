"""Engines' threads spin for a while after a run, in case another one follows: nobody else is to be timed meanwhile.

On two cores of an AMD EPYC TVM's spin for 145 ms, ONNX Runtime's for 35; 172 µs of ONNX Runtime's became 315 beside a
network of ours that had just run.
"""

from __future__ import annotations

import time
from pathlib import Path

_LOOK_S, _LOOKS = 0.005, 2
# Where nobody can look: longer than TVM's threads were seen to spin.
UNSEEN_S = 0.5


def wait_until_asleep(pid: int, *, within_s: float = 2.0) -> None:
    """Until no thread of a process runs or wants to, in a few looks one after another; no longer than ``within_s``."""
    deadline = time.monotonic() + within_s
    looks = 0
    while looks < _LOOKS and time.monotonic() < deadline:
        awake = is_awake(pid)
        if awake is None:
            time.sleep(UNSEEN_S)
            return
        looks = 0 if awake else looks + 1
        time.sleep(_LOOK_S)


def is_awake(pid: int) -> bool | None:
    """Whether a thread is running or ready to; None where there is no ``/proc``, or no such process."""
    try:
        threads = [(each / "stat").read_text(errors="replace") for each in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:  # a thread that ended meanwhile was awake
        return True if Path(f"/proc/{pid}").exists() else None
    # The name is in parentheses, and may hold any character.
    return any(text.rpartition(")")[2].split()[0] == "R" for text in threads)
