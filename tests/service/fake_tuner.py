"""``fake_tuner.py BEHAVIOUR DATA_DIR DESCRIPTOR``: the confined half of a fake job (`fake_job.py`), without TVM."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

from tests.service.sandbox import hostile
from tests.service.trials import record, workload
from tuner import job
from tuner.bundle import BUNDLE_FORMAT, bundle_name
from tuner.cost_model_store import CostModelStore
from tuner.errors import BuildError, UnsupportedOperators
from tuner.events import EventSink, Finished, Progress, Stage, StageStarted, TasksExtracted, TaskSummary, TrialMeasured
from tuner.measure.fleet import NoBoardError
from tuner.records import RecordStore
from tuner.request import TuneRequest, TuneResult
from tuner.search.alternatives import Use

TRIALS = 4


def tune(
    request: TuneRequest, *, store: RecordStore, models: CostModelStore, sink: EventSink, what: str, data_dir: Path
) -> TuneResult:
    if what.startswith("hostile:"):
        return hostile.tune(request, store=store, sink=sink, what=what.partition(":")[2])
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
    measure(1 if what.startswith("record+") else TRIALS, request, store, sink)
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
        with (data_dir / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
    return finish(request, sink)


def measure(more: int, request: TuneRequest, store: RecordStore, sink: EventSink) -> None:
    """Measure up to ``more`` trials, at most TRIALS over all attempts."""
    task = workload(1)
    sink.emit(
        TasksExtracted(tasks=(TaskSummary(key="t1", name="dense", workload=task.key, uses=(Use(count=2),), flops=1e6),))
    )
    store.add_workload(task)
    done = len(store.own())
    for number in range(done + 1, min(done + more, TRIALS) + 1):
        measured = record(number, latency_us=100.0 / number, target_fingerprint=request.target.fingerprint)
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


def finish(request: TuneRequest, sink: EventSink) -> TuneResult:
    bundle = write_bundle(request)
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


def write_bundle(request: TuneRequest, **changes: object) -> Path:
    """A bundle that holds nothing, with a manifest that has ``changes``."""
    contents = {"records.json": b"{}", "run.py": b"{}"}
    manifest = {
        "format": BUNDLE_FORMAT,
        "model": {"name": request.model_name, "sha256": hashlib.sha256(request.model_path.read_bytes()).hexdigest()},
        "target": {"name": request.target.name},
        "outcome": "improved",
        "seed": request.seed,
        "files": {name: {"sha256": hashlib.sha256(data).hexdigest()} for name, data in contents.items()},
        **changes,
    }
    bundle = request.work_dir / bundle_name(request.model_name, request.target.name)
    with tarfile.open(bundle, "w:gz") as archive:
        for name, data in {"manifest.json": json.dumps(manifest).encode(), **contents}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return bundle


if __name__ == "__main__":
    behaviour, data_dir, descriptor = sys.argv[1:]
    sys.modules["tuner.tune"] = type(sys)("tuner.tune")
    sys.modules["tuner.tune"].tune = partial(tune, what=behaviour, data_dir=Path(data_dir))  # type: ignore[attr-defined]
    sys.exit(job.main([descriptor]))
