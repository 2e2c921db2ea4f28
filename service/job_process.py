"""``python -m service.job_process JOB_ID ATTEMPT``: runs one attempt of a job, to the job's end if nothing happens.

The process works for the database, not for the server that started it: it writes records, events and the final state
itself, so it goes on when the server dies. It ends quietly when the job is cancelled or deleted under it, or when the
job's next attempt was started elsewhere.

It is the trusted half of the job. The model is imported, compiled and run by another process (`tuner.job`), which is
confined and speaks to this one (`service.job_host`). When that one dies, this one dies in the same way, so that whoever
watches it (`service.jobs.deaths`) knows.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Iterator

from service.blobs import BlobStore, open_blobs
from service.database import Database
from service.database.session import JOB_PATIENCE_S
from service.database.tables import Job, Model
from service.disk_guard import full_disk_is_told
from service.engine.build_hosts import build_hosts
from service.engine.processes import PARENT_VARIABLE
from service.errors import StorageFull, StorageUnavailable
from service.job_host.errors import NoBoard, TunerDied
from service.job_host.host import JobHost
from service.job_host.messages import Succeed
from service.job_host.process import Program, run_confined
from service.job_host.result import require_bundle
from service.jobs import queue
from service.jobs.artifacts import Shelf, store_artifacts, store_schedules
from service.jobs.states import JobState
from service.settings import Settings
from service.signing import SUFFIX, sign
from service.stores import DatabaseCostModelStore, DatabaseRecordStore, JobReporter
from tuner.bundle import bundle_name
from tuner.errors import TesseraError
from tuner.events import Log
from tuner.measure.tracker import Tracker, TrackerError
from tuner.priority import set_session_niceness
from tuner.request import Budget, TuneRequest
from tuner.sandbox.files import remove_tree
from tuner.sandbox.keeper import descendants, end_descendants, end_like
from tuner.targets import TargetSpec, can_measure

_HEARTBEAT_S = 5.0
# How long a job whose last board is gone waits at least: the server may not have noticed yet.
_WITHOUT_BOARD_S = 2.0
# And one that could not reach the place of the blobs, after the tries of a single request.
_WITHOUT_STORAGE_S = 5.0
# When a job that had no space left is tried again at the earliest, where the guard sees enough: another disk was full.
_SPACE_AFTER_S = 60.0
# Records beside the budgeted trials: default schedules and finalists are recorded too, and a batch may run over.
_RECORDS_A_TRIAL, _MORE_RECORDS = 4, 10_000
# Of a job without a number of trials.
_MOST_RECORDS = 10_000_000


def main(arguments: list[str] | None = None, *, program: Program | None = None) -> int:
    """``program`` is what runs confined in the tuner's place, for tests."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 2 or not arguments[1].isdecimal():
        print("usage: python -m service.job_process JOB_ID ATTEMPT", file=sys.stderr)
        return 2
    settings = Settings()
    os.nice(settings.job_niceness)
    set_session_niceness(os.getpid(), settings.job_niceness)
    database = Database(settings.sqlalchemy_url, patient_s=JOB_PATIENCE_S)
    try:
        return run(settings, database, arguments[0], attempt=int(arguments[1]), program=program)
    except TunerDied as death:
        database.close()
        sys.stdout.flush()
        end_like(death.exit_code)
    finally:
        database.close()


def run(settings: Settings, database: Database, job_id: str, *, attempt: int, program: Program | None = None) -> int:
    """Run the job; returns the exit status: 0 when its state is written, whatever that is. Raises `TunerDied`."""
    with database.read() as session:
        job = session.get(Job, job_id)
        model = session.get(Model, (job.project, job.model_id)) if job else None
    if job is None or model is None or job.state != JobState.RUNNING or job.attempts != attempt:
        found = f"state: {job.state}, attempt: {job.attempts}" if job else "state: unknown"
        print(f"attempt {attempt} of job {job_id} is not to be run ({found})", file=sys.stderr)
        return 0
    # Whoever took the tuner over is to learn nothing of other projects: from here on they are not there.
    database = database.of_project(job.project)
    blobs = open_blobs(settings)
    reporter = JobReporter(database, job_id, attempt=attempt)
    try:
        with _heartbeat(database, job_id, attempt=attempt), full_disk_is_told(settings.jobs_dir):
            request = make_request(settings, blobs, job, model_name=model.name)
            host = JobHost(
                store=DatabaseRecordStore(database, job_id, attempt=attempt),
                models=DatabaseCostModelStore(database, blobs),
                sink=reporter,
                fingerprint=request.target.fingerprint,
                most_records=_most_records(job),
                has_fleet=request.fleet is not None,
            )
            result = run_confined(settings, job_id, request, host, program=program)
            _keep(result, request, settings, job, Shelf(database, blobs, job_id, attempt))
    except queue.Superseded:
        print("the job was started elsewhere meanwhile", file=sys.stderr, flush=True)
        return 0
    except (NoBoard, TrackerError) as error:
        reason = f"{error.message} The job waits for a board and resumes from its records."
        queue.requeue(database, job_id, reason=reason, attempt=attempt, after_s=_WITHOUT_BOARD_S)
        return 0
    except StorageUnavailable as error:
        reason = f"{error.message} The job waits for it and resumes from its records."
        queue.requeue(database, job_id, reason=reason, attempt=attempt, after_s=_WITHOUT_STORAGE_S)
        return 0
    except StorageFull as error:
        # The next attempt makes it anew, and the database may need the space to say so. Where even that is not enough,
        # this process dies of it, and the engine puts the job back as soon as it can.
        remove_tree(settings.work_dir(job_id))
        reason = f"{error.message} The job waits for space and resumes from its records."
        queue.requeue(
            database,
            job_id,
            reason=reason,
            attempt=attempt,
            crash=job.crash,
            barren_attempts=job.barren_attempts,
            after_s=_SPACE_AFTER_S,
        )
        return 0
    except TesseraError as error:
        reporter.emit(Log(message=f"{error.code}: {error.message} {error.hint}".strip(), level="error"))
        queue.finish(database, job_id, JobState.FAILED, attempt=attempt, error=error.as_dict())
    except MemoryError:
        reporter.emit(Log(message="There was not enough memory.", level="error"))
        queue.finish(database, job_id, JobState.FAILED, attempt=attempt, error=_out_of_memory().as_dict())
    except TunerDied:
        raise
    except Exception as error:
        traceback.print_exc()
        reporter.emit(Log(message=f"{type(error).__name__}: {error}", level="error"))
        unexpected = TesseraError(f"The job failed unexpectedly: {type(error).__name__}: {error}")
        queue.finish(database, job_id, JobState.FAILED, attempt=attempt, error=unexpected.as_dict())
    else:
        queue.finish(database, job_id, JobState.SUCCEEDED, attempt=attempt, outcome=result.outcome)
    remove_tree(settings.work_dir(job_id))
    return 0


def make_request(settings: Settings, blobs: BlobStore, job: Job, *, model_name: str) -> TuneRequest:
    """The tuner's request of a job's row."""
    return TuneRequest(
        model_path=blobs.path(job.model_id),
        model_name=model_name,
        target=TargetSpec.from_dict(job.target_spec),
        work_dir=settings.work_dir(job.id),
        budget=Budget(trials=job.trials, time_limit_s=job.time_limit_s),
        input_shapes={name: tuple(shape) for name, shape in job.input_shapes.items()},
        samples=blobs.path(job.samples_id) if job.samples_id else None,
        measure=job.measure,
        fleet=_fleet(settings, job),
        build_hosts=build_hosts(),
        memory_limit_bytes=job.memory_limit_bytes,
        seed=job.seed,
    )


def _fleet(settings: Settings, job: Job) -> Tracker | None:
    """Where boards are that measure the job; None where this machine does, or nothing."""
    if settings.tracker is None or job.measure != "device" or can_measure(TargetSpec.from_dict(job.target_spec)):
        return None
    return Tracker.parse(settings.tracker)


def _most_records(job: Job) -> int:
    return job.trials * _RECORDS_A_TRIAL + _MORE_RECORDS if job.trials else _MOST_RECORDS


def _keep(result: Succeed, request: TuneRequest, settings: Settings, job: Job, shelf: Shelf) -> None:
    """Look at what was made, sign it, and put it where it is downloaded from."""
    bundle = require_bundle(
        request.work_dir,
        bundle_name(request.model_name, request.target.name),
        job=job,
        outcome=result.outcome,
        most_bytes=settings.job_disk_bytes,
    )
    # Not beside the bundle: the folder's other files are the confined process'.
    signature = request.work_dir.parent / (bundle.name + SUFFIX)
    try:
        signature.write_bytes(sign(settings, bundle))
        store_artifacts(shelf, bundle, signature)
    finally:
        signature.unlink(missing_ok=True)
    store_schedules(shelf, result.schedules)


def _out_of_memory() -> TesseraError:
    return TesseraError(
        "There was not enough memory for the job.",
        code="out_of_memory",
        hint="Close other programs or use a machine with more memory, then start the job again.",
    )


@contextlib.contextmanager
def _heartbeat(database: Database, job_id: str, *, attempt: int) -> Iterator[None]:
    """Say every few seconds that this process is alive, and nothing below it is stopped; end it when the job was taken
    from it, or when the parent that it is to end with has died. What is confined ends before it."""
    stopped = threading.Event()
    parent = os.environ.get(PARENT_VARIABLE)

    def beat() -> None:
        while not stopped.wait(_HEARTBEAT_S):
            if parent is not None and os.getppid() != int(parent):
                _end()  # who supervised it is gone, and the job is started elsewhere
            # The tuner sees to its runners and builders within seconds; when it is stopped itself, only silence tells.
            if "T" in descendants(os.getpid()).values():
                continue
            with contextlib.suppress(Exception):  # a busy database: the next beat tells
                if queue.beat(database, job_id, attempt=attempt) not in (JobState.RUNNING, JobState.CANCELLING):
                    print("the job was ended by someone else", file=sys.stderr, flush=True)
                    _end()

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(_HEARTBEAT_S)


def _end() -> None:
    end_descendants(os.getpid(), within_s=_HEARTBEAT_S)
    os._exit(3)


if __name__ == "__main__":
    sys.exit(main())
