"""The trusted half of a job against a connection that says anything, without processes."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from service.job_host import host
from service.job_host.errors import ForgedResult, NoBoard, NoSpace
from service.job_host.host import JobHost
from service.job_host.messages import Succeed
from tests.service.trials import FINGERPRINT, record, workload
from tuner import wire
from tuner.cost_model_store import HeldOutPoint, MemoryCostModelStore, StoredCostModel
from tuner.errors import MissingDimensions, TesseraError
from tuner.events import ListSink, Log, Progress, Stage, StageStarted, TasksExtracted, TaskSummary, TrialMeasured
from tuner.job import failure_of
from tuner.measure.fleet import NoBoardError
from tuner.records import FailureKind, MemoryRecordStore
from tuner.remote import Remote, RemoteCostModelStore, RemoteRecordStore, RemoteSink
from tuner.search.alternatives import Alternative, Use

Serve = Callable[[], Succeed | None]


class Job:
    """A host in a thread, and a client of it."""

    def __init__(self, **changes: object) -> None:
        self.store, self.models, self.sink = MemoryRecordStore(), MemoryCostModelStore(), ListSink()
        given = {"fingerprint": FINGERPRINT, "most_records": 100, "has_fleet": True, **changes}
        self.host = JobHost(store=self.store, models=self.models, sink=self.sink, **given)  # type: ignore[arg-type]
        self.connection, self._theirs = socket.socketpair()
        self.remote = Remote(self.connection)
        self.found: list[object] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._theirs:
            try:
                self.found.append(self.host.serve(self._theirs))
            except Exception as error:
                self.found.append(error)

    def ended(self) -> object:
        """What the host returned, or raised; the connection is closed then."""
        self._thread.join(20)
        self.connection.close()
        (found,) = self.found
        return found


@pytest.fixture
def job() -> Iterator[Job]:
    made = Job()
    yield made
    made.connection.close()
    made.ended()


def test_records_come_back_as_they_went(job: Job) -> None:
    store = RemoteRecordStore(job.remote)
    store.add_workload(workload(1))
    given = [record(1), record(2, failure=FailureKind.BUILD_ERROR), record(3, features=0)]
    store.add(given)
    assert store.own() == given == job.store.own()
    assert store.seen("workload-1", target_fingerprint=FINGERPRINT) == given
    trained = store.training_set(target_fingerprint=FINGERPRINT, features_version=1, limit=9)
    assert trained == [replace(given[0], trace="")]
    assert job.store.workloads == {"workload-1": workload(1)}


def test_cost_models_come_back_as_they_went(job: Job) -> None:
    models = RemoteCostModelStore(job.remote)
    assert models.load(FINGERPRINT) is None
    samples = b"\0samples" * 100_000
    stored = StoredCostModel(
        target_fingerprint=FINGERPRINT,
        features_version=2,
        model=b"\xff\x00model",
        samples=samples,
        sample_count=3,
        training_set_sha256=hashlib.sha256(samples).hexdigest(),
        rank_quality={"spearman": 0.5},
        held_out=(HeldOutPoint(workload=0, measured_log2=-1.0, predicted_log2=0.25),),
    )
    assert models.save(stored) == 1
    assert models.load(FINGERPRINT) == stored


def test_events_arrive_as_they_were(job: Job) -> None:
    use = Use(count=2, alternative=Alternative(choice="conv", way="winograd"))
    summary = TaskSummary(key="t", name="dense", workload="workload-1", uses=(use, Use(count=1)), flops=1e6)
    trial = TrialMeasured(
        number=1, task="t", latency_us=1.5, failure=None, task_best_us=1.5, estimated_us=None, knobs={"tile": [4, 1]}
    )
    failed = replace(trial, number=2, latency_us=None, failure=FailureKind.RUN_TIMEOUT)
    progress = Progress(trials_done=1, trials_total=None, fraction=0.5, eta_s=None, estimated_us=3.0)
    events = [StageStarted(stage=Stage.TUNE), TasksExtracted(tasks=(summary,)), trial, failed, progress]
    for event in events:
        RemoteSink(job.remote).emit(event)
    assert job.sink.events == events


def test_long_lines_of_the_log_are_cut(job: Job) -> None:
    RemoteSink(job.remote).emit(Log(message="x" * 100_000))
    (event,) = job.sink.events
    assert isinstance(event, Log)
    assert len(event.message) == 8_000


def test_what_came_of_a_job_is_told() -> None:
    job = Job()
    job.remote.ask("succeed", {"outcome": "improved", "schedules": [{"key": "t"}]})
    assert job.ended() == Succeed(outcome="improved", schedules=[{"key": "t"}])
    job = Job()
    job.connection.close()
    assert job.ended() is None


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (MissingDimensions("m", details={"dimensions": ["x[0]"]}), TesseraError, "missing_dimensions"),
        (NoBoardError("gone"), NoBoard, "no_device"),
        (OSError(28, "No space left on device"), NoSpace, None),
        (MemoryError(), MemoryError, None),
        (RuntimeError("a mistake"), TesseraError, "internal_error"),
    ],
)
def test_errors_come_over_as_data(error: Exception, kind: type[Exception], code: str | None) -> None:
    job = Job()
    job.remote.ask("fail", failure_of(error))
    found = job.ended()
    assert isinstance(found, kind)
    if isinstance(found, TesseraError):
        assert found.code == code
        assert found.details == getattr(error, "details", {})
    if isinstance(found, OSError):
        assert found.errno == 28


def test_a_board_is_not_waited_for_where_there_is_no_fleet() -> None:
    job = Job(has_fleet=False)
    job.remote.ask("fail", failure_of(NoBoardError("gone")))
    found = job.ended()
    assert isinstance(found, TesseraError)
    assert not isinstance(found, NoBoard)


NESTED: dict[str, object] = {}
for _ in range(300):
    NESTED = {"in": NESTED}
TRIAL = {"number": 1, "task": "t", "latency_us": 1.0, "failure": None, "task_best_us": 1.0, "estimated_us": None}
RECORD = vars(record(1))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"do": None},
        {"do": "drop"},
        {"do": ["emit"]},
        {"do": "own", "more": 1},
        {"do": "seen", "workload": "w", "target_fingerprint": "other"},
        {"do": "seen", "workload": 5, "target_fingerprint": FINGERPRINT},
        {"do": "training_set", "target_fingerprint": FINGERPRINT, "features_version": 1, "limit": -1},
        {"do": "load_cost_model", "target_fingerprint": "other"},
        {"do": "add_workload", "given": {"key": "w" * 200}},
        {"do": "add_records", "records": {}},
        {"do": "add_records", "records": [RECORD]},
        {"do": "add_records", "records": [RECORD | {"latency_us": 0}]},
        {"do": "add_records", "records": [RECORD | {"latency_us": 1e13}]},
        {"do": "add_records", "records": [RECORD | {"failure": "boredom", "latency_us": None}]},
        {"do": "add_records", "records": [RECORD | {"job_id": "another"}]},
        {"do": "add_records", "records": [RECORD | {"knobs": {"x": "y" * 300_000}}]},
        {"do": "add_records", "records": [RECORD | {"decisions": [[2**70]]}]},
        {"do": "add_records", "records": [RECORD] * 101},
        {"do": "emit", "events": []},
        {"do": "emit", "events": [{"kind": "state", "data": {"state": "succeeded"}}]},
        {"do": "emit", "events": [{"kind": "stage", "data": {"stage": "party"}}]},
        {"do": "emit", "events": [{"kind": "stage", "data": {}}]},
        {"do": "emit", "events": [{"kind": "stage", "data": {"stage": "tune"}}, {"kind": "stage", "data": {}}]},
        {"do": "emit", "events": [{"kind": "stage", "data": {"stage": "tune"}}] * 1_001},
        {"do": "emit", "events": [{"kind": "stage", "data": {"stage": "tune", "more": 1}}]},
        {"do": "emit", "events": [{"kind": "log", "data": {"message": "m", "level": "shout"}}]},
        {"do": "emit", "events": [{"kind": "trial", "data": {**TRIAL, "number": 2**40, "knobs": {}}}]},
        {"do": "emit", "events": [{"kind": "trial", "data": {**TRIAL, "latency_us": -1.0, "knobs": {}}}]},
        {"do": "emit", "events": [{"kind": "trial", "data": {**TRIAL, "task": "t" * 10_000, "knobs": {}}}]},
        {"do": "emit", "events": [{"kind": "trial", "data": {**TRIAL, "failure": [], "knobs": {}}}]},
        {"do": "emit", "events": [{"kind": "trial", "data": TRIAL}]},
        {"do": "emit", "events": [{"kind": "preflight", "data": {"report": {"operators": 5}}}]},
        {"do": "emit", "events": [{"kind": "trial", "data": {**TRIAL, "knobs": NESTED}}]},
        {"do": "succeed", "outcome": "great", "schedules": []},
        {"do": "succeed", "outcome": "improved", "schedules": "none"},
        {"do": "fail", "kind": "refused", "error": {"code": "Not A Code", "message": "m", "hint": "h"}},
        {"do": "fail", "kind": "superseded", "error": {"code": "c", "message": "m", "hint": "h"}},
    ],
)
def test_what_the_tuner_would_not_say_ends_the_job(body: dict[str, object]) -> None:
    job = Job()
    wire.send(job.connection, body)
    found = job.ended()
    assert isinstance(found, ForgedResult), found
    assert job.store.own() == []
    assert job.sink.events == []


def test_who_talks_too_fast_waits_however_many_events_are_in_a_message(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    now_s = time.monotonic()
    monkeypatch.setattr(host, "time", SimpleNamespace(monotonic=lambda: now_s, sleep=slept.append))
    sink = RemoteSink(job.remote)
    for _ in range(5):
        sink.emit(*[Log(message="m")] * 1_000)
    assert slept == []
    sink.emit(Log(message="m"))
    assert slept == [pytest.approx(1 / 200)]
    assert len(job.sink.events) == 5_001


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 64,
        b"\0\0\0\2\0\0\0\0[]",
        b"\0\0\0\2\0\0\0\0{]",
        b"\0\0\0\x0b\0\0\0\0" + b'{"do": NaN}',
        b"\0\0\0\x0d\0\0\0\0" + b'{"do": 1e999}',
        b"\0\1\x86\xa0\0\0\0\0" + b"[" * 100_000,
        b"\0\0\0\x0f\0\0\0\0" + b'{"do":"\\ud800"}',
        b"\0\0\0\x0a\0\0\0\0" + b'{"do":"\xff"}',
        b"\0\0\0\2\0\0\0\1" + b"\xff" * 8 + b"{}",
    ],
)
def test_what_is_no_message_ends_the_job(sent: bytes) -> None:
    job = Job()
    job.connection.sendall(sent)
    assert isinstance(job.ended(), ForgedResult)


def test_a_cost_model_without_its_bytes_is_none(job: Job) -> None:
    given = {
        "target_fingerprint": FINGERPRINT,
        "features_version": 2,
        "sample_count": 3,
        "training_set_sha256": "0" * 64,
        "rank_quality": {},
        "held_out": [],
    }
    wire.send(job.connection, {"do": "save_cost_model", "given": given}, (b"model", b"other samples"))
    assert isinstance(job.ended(), ForgedResult)


def test_a_message_that_is_cut_off_is_a_death() -> None:
    job = Job()
    job.connection.sendall(b"\0\0\1\0\0\0\0\0{")
    job.connection.close()
    assert job.ended() is None
