"""A job process without TVM: the file ``behaviour`` in the data directory, or ``$FAKE_JOB``, says how it behaves, as
``first,second,…`` attempt. The last one repeats.

succeed            writes 4 trials and finishes
exit1              ends with status 1 at once
signal:SIGSEGV     reports stage import and kills itself so
record+signal:…    writes one trial first
raise              an ordinary exception in the tuner
refuse             an error of the tuner with a code
record+noboard     the last board is gone after one trial
record+full        no space is left after one trial
record+wrapped     the same, found by the compiler
record+fill        takes all the space there is after one trial, and fails for it
hang               runs until it is ended
record+hang        writes one trial first
family             like hang, with a grandchild in a session of its own and an orphan that lost its parent
"""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import tarfile
import time

import service.job_process as job_process
from service.database import Database
from service.queries.jobs import get_job
from service.settings import Settings
from tests.service.tuning import record, workload
from tuner.cost_model_store import CostModelStore
from tuner.errors import BuildError, UnsupportedOperators
from tuner.events import EventSink, Finished, Progress, Stage, StageStarted, TasksExtracted, TaskSummary, TrialMeasured
from tuner.measure.fleet import NoBoardError
from tuner.records import RecordStore
from tuner.request import TuneRequest, TuneResult
from tuner.search.alternatives import Use

TRIALS = 4
BEHAVIOUR = "behaviour"


def behaviour(attempt: int) -> str:
    said = Settings().data_dir / BEHAVIOUR
    plan = (said.read_text() if said.exists() else os.environ["FAKE_JOB"]).split(",")
    return plan[min(attempt, len(plan)) - 1]


def tune(request: TuneRequest, *, store: RecordStore, models: CostModelStore, sink: EventSink) -> TuneResult:
    job_id = sys.argv[1]
    database = Database(Settings().sqlalchemy_url)
    what = behaviour(get_job(database, job_id).attempts)
    database.close()
    sink.emit(StageStarted(stage=Stage.IMPORT))
    if what == "raise":
        raise RuntimeError("the tuner has a mistake")
    if what == "refuse":
        raise UnsupportedOperators("2 operators cannot be imported.", details={"operators": {"Foo": 2}})
    if what == "exit1":
        os._exit(1)
    if what == "family":
        forever = [sys.executable, "-c", "import time; time.sleep(600)"]
        subprocess.Popen(forever, start_new_session=True)
        # The shell ends at once: its child is an orphan in a session of its own.
        orphan = f"setsid {' '.join(forever[:1])} -c 'import time; time.sleep(600)' & "
        subprocess.run(["/bin/sh", "-c", orphan], check=True)
        (request.work_dir / "ready").touch()
    if what in ("hang", "family"):
        (request.work_dir / "ready").touch()
        time.sleep(600)
    sink.emit(StageStarted(stage=Stage.TUNE))
    _measure(1 if what.startswith("record+") else TRIALS, store, sink)
    if "signal:" in what:
        os.kill(os.getpid(), signal.Signals[what.partition("signal:")[2]])
        time.sleep(600)
    if what == "record+hang":
        time.sleep(600)
    if what == "record+noboard":
        raise NoBoardError("No board of x was free within 60 s.")
    if what == "record+full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if what == "record+wrapped":
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise BuildError("The network could not be compiled.") from error
    if what == "record+fill":
        with (Settings().data_dir / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
    return _finish(request, sink)


def _measure(more: int, store: RecordStore, sink: EventSink) -> None:
    """Measure up to ``more`` trials, at most TRIALS over all attempts."""
    task = workload(1)
    sink.emit(
        TasksExtracted(tasks=(TaskSummary(key="t1", name="dense", workload=task.key, uses=(Use(count=2),), flops=1e6),))
    )
    store.add_workload(task)
    done = len(store.own())
    for number in range(done + 1, min(done + more, TRIALS) + 1):
        measured = record(number, latency_us=100.0 / number)
        store.add([measured])
        sink.emit(
            TrialMeasured(
                number=number,
                task="t1",
                latency_us=measured.latency_us,
                failure=None,
                task_best_us=measured.latency_us,
                estimated_us=200.0 / number,
                knobs=measured.knobs,
            )
        )
        sink.emit(
            Progress(
                trials_done=number,
                trials_total=TRIALS,
                fraction=number / TRIALS,
                eta_s=float(TRIALS - number),
                estimated_us=200.0 / number,
            )
        )


def _finish(request: TuneRequest, sink: EventSink) -> TuneResult:
    bundle = request.work_dir / f"{request.model_name}-{request.target.name}.tar.gz"
    with tarfile.open(bundle, "w:gz") as archive:
        for name in ("manifest.json", "records.json", "run.py"):
            member = tarfile.TarInfo(name)
            member.size = 2
            archive.addfile(member, io.BytesIO(b"{}"))
    sink.emit(
        Finished(
            outcome="improved",
            tuned_us=40.0,
            tuned_spread_us=1.0,
            untuned_us=100.0,
            onnxruntime_us=50.0,
            max_abs_error=1e-6,
            max_rel_error=1e-6,
        )
    )
    return TuneResult(outcome="improved", bundle=bundle, manifest={}, schedules=[{"key": "t1"}])


if __name__ == "__main__":
    sys.modules["tuner.tune"] = type(sys)("tuner.tune")
    sys.modules["tuner.tune"].tune = tune  # type: ignore[attr-defined]
    sys.exit(job_process.main(sys.argv[1:]))
