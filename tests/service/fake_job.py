"""A job process without TVM: the file ``behaviour`` in the data directory, or ``$FAKE_JOB``, says how it behaves, as
``first,second,…`` attempt. The last one repeats.

The trusted half is the real one; `fake_tuner.py` takes the place of the confined one.

succeed            writes 4 trials and finishes
exit1              ends with status 1 at once
signal:SIGSEGV     reports stage import and kills itself so
record+signal:…    writes one trial first
raise              an ordinary exception in the tuner
refuse             an error of the tuner with a code
record+noboard     the last board is gone after one trial
record+full        no space is left after one trial
record+wrapped     the same, found by the compiler
record+fill        takes all the space there is after one trial, and fails for it (unconfined)
hang               runs until it is ended
record+hang        writes one trial first
family             like hang, with a grandchild in a session of its own and an orphan that lost its parent
hostile:…          does what `hostile.py` says
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import service.job_process as job_process
from service.job_host.process import Program
from service.settings import Settings

BEHAVIOUR = "behaviour"
_FOLDER = Path(__file__).resolve().parent
_ROOT = _FOLDER.parents[1]


def behaviour(attempt: int) -> str:
    said = Settings().data_dir / BEHAVIOUR
    plan = (said.read_text() if said.exists() else os.environ["FAKE_JOB"]).split(",")
    return plan[min(attempt, len(plan)) - 1]


def program(what: str) -> Program:
    script = str(_FOLDER / "fake_tuner.py")
    return Program(command=(sys.executable, "-P", script, what, str(Settings().data_dir)), read=(_ROOT / "tests",))


if __name__ == "__main__":
    sys.exit(job_process.main(sys.argv[1:], program=program(behaviour(int(sys.argv[2])))))
