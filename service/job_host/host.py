"""Serves the confined half of one attempt of a job: its records, cost models and events, and what came of it."""

from __future__ import annotations

import hashlib
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DataError

from service.job_host.errors import ForgedResult, NoBoard, NoSpace
from service.job_host.messages import (
    AddRecords,
    AddWorkload,
    Emit,
    Fail,
    LoadCostModel,
    Own,
    SaveCostModel,
    Seen,
    Succeed,
    TrainingSet,
)
from tuner import wire
from tuner.cost_model_store import CostModelStore, HeldOutPoint, StoredCostModel
from tuner.errors import TesseraError
from tuner.events import EventSink
from tuner.records import RecordStore, Workload
from tuner.remote import records_as_message

_MOST_MESSAGE_BYTES = 1024**3
# So many at once, and so many a second from then on; whoever sends more waits. A job has some tens a second at most.
_BURST, _PER_S = 5_000, 200.0
_UNEXPECTED = "The job failed unexpectedly: "

_Message = TypeVar("_Message", bound=BaseModel)
Answer = tuple[dict[str, Any], Sequence[bytes]]
_DONE: Answer = ({}, ())


@dataclass(kw_only=True)
class JobHost:
    """``fingerprint`` is the job's target's: nothing of another is told or taken. ``most_records`` is how many records
    its budget allows; ``has_fleet`` whether boards measure it."""

    store: RecordStore
    models: CostModelStore
    sink: EventSink
    fingerprint: str
    most_records: int
    has_fleet: bool
    _records: int = field(default=0, init=False)
    _allowed: float = field(default=_BURST, init=False)
    _asked_at: float = field(default_factory=time.monotonic, init=False)

    def serve(self, connection: socket.socket) -> Succeed | None:
        """Until the job is done; None when the other side closed before. Raises what the tuner failed with, and
        `ForgedResult` for anything that it would not say."""
        while True:
            try:
                message = wire.receive(connection, most_bytes=_MOST_MESSAGE_BYTES)
            except wire.WireError as error:
                raise ForgedResult(f"The confined process sent {error}.") from error
            except ConnectionError:
                return None
            if message is None:
                return None
            self._wait_for_turn()
            do = str(message.body.pop("do", None))
            if do == "succeed":
                result = _parsed(Succeed, message)
                wire.send(connection, {})
                return result
            if do == "fail":
                failure = _parsed(Fail, message)
                wire.send(connection, {})
                raise self._failure(failure)
            answer, blobs = self._answer(do, message)
            try:
                wire.send(connection, answer, blobs)
            except ConnectionError:
                return None

    def _answer(self, do: str, message: wire.Message) -> Answer:
        answers: dict[str, tuple[type[BaseModel], Callable[[Any, wire.Message], Answer]]] = {
            "add_workload": (AddWorkload, self._add_workload),
            "add_records": (AddRecords, self._add_records),
            "seen": (Seen, self._seen),
            "own": (Own, self._own),
            "training_set": (TrainingSet, self._training_set),
            "load_cost_model": (LoadCostModel, self._load_cost_model),
            "save_cost_model": (SaveCostModel, self._save_cost_model),
            "emit": (Emit, self._emit),
        }
        if do not in answers:
            raise ForgedResult(f"The confined process asked for {do[:40]!r}.")
        kind, obey = answers[do]
        try:
            return obey(_parsed(kind, message), message)
        except (KeyError, TypeError, UnicodeError, OverflowError, DataError) as error:
            reason = str(error)[:500].encode(errors="replace").decode()
            raise ForgedResult(f"The confined process gave {do} what cannot be stored: {reason}") from error

    def _add_workload(self, asked: AddWorkload, message: wire.Message) -> Answer:
        self.store.add_workload(Workload(**asked.given.model_dump()))
        return _DONE

    def _add_records(self, asked: AddRecords, message: wire.Message) -> Answer:
        self._records += len(asked.records)
        if self._records > self.most_records:
            raise ForgedResult(f"The confined process recorded {self._records} trials; its budget is smaller.")
        records = [each.record() for each in asked.records]
        for record in records:
            self._require_own(record.target_fingerprint)
        self.store.add(records)
        return _DONE

    def _seen(self, asked: Seen, message: wire.Message) -> Answer:
        self._require_own(asked.target_fingerprint)
        return records_as_message(self.store.seen(asked.workload, target_fingerprint=asked.target_fingerprint))

    def _own(self, asked: Own, message: wire.Message) -> Answer:
        return records_as_message(self.store.own())

    def _training_set(self, asked: TrainingSet, message: wire.Message) -> Answer:
        self._require_own(asked.target_fingerprint)
        return records_as_message(self.store.training_set(**asked.model_dump()), traces=False)

    def _load_cost_model(self, asked: LoadCostModel, message: wire.Message) -> Answer:
        self._require_own(asked.target_fingerprint)
        stored = self.models.load(asked.target_fingerprint)
        if stored is None:
            return {"model": None}, ()
        told = {name: value for name, value in asdict(stored).items() if name not in ("model", "samples")}
        return {"model": told}, (stored.model, stored.samples)

    def _save_cost_model(self, asked: SaveCostModel, message: wire.Message) -> Answer:
        given = asked.given
        self._require_own(given.target_fingerprint)
        if len(message.blobs) != 2:
            raise ForgedResult("The confined process sent a cost model without its bytes.")
        model, samples = message.blobs
        if hashlib.sha256(samples).hexdigest() != given.training_set_sha256:
            raise ForgedResult("The confined process sent a training set that is not the one it names.")
        fields = given.model_dump() | {
            "held_out": tuple(HeldOutPoint(**point.model_dump()) for point in given.held_out)
        }
        return {"version": self.models.save(StoredCostModel(**fields, model=model, samples=samples))}, ()

    def _emit(self, asked: Emit, message: wire.Message) -> Answer:
        try:
            events = [each.event() for each in asked.events]
        except ValueError as error:  # pydantic's errors among them
            raise ForgedResult(f"The confined process told of {str(error)[:500]}") from error
        self._allowed -= len(events) - 1
        self.sink.emit(*events)
        return _DONE

    def _require_own(self, fingerprint: str) -> None:
        if fingerprint != self.fingerprint:
            raise ForgedResult("The confined process asked for, or gave, something of another target.")

    def _failure(self, said: Fail) -> Exception:
        """What the job is to end with."""
        error = said.error
        match said.kind:
            case "no_space":
                return NoSpace(error.message)
            case "no_memory":
                return MemoryError(error.message)
            case "unexpected":
                return TesseraError(_UNEXPECTED + error.message)
            case "no_board" if self.has_fleet:
                return NoBoard(error.message, code=error.code, hint=error.hint)
        return TesseraError(error.message, code=error.code, hint=error.hint, details=error.details)

    def _wait_for_turn(self) -> None:
        """A bucket of tokens, one for a message, or for each event in it: whoever talks too fast is answered later."""
        now = time.monotonic()
        self._allowed = min(_BURST, self._allowed + (now - self._asked_at) * _PER_S) - 1
        self._asked_at = now
        if self._allowed < 0:
            time.sleep(-self._allowed / _PER_S)


def _parsed(kind: type[_Message], message: wire.Message) -> _Message:
    try:
        return kind.model_validate(message.body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise ForgedResult(f"The confined process sent no {kind.__name__}: {where}: {first['msg'][:200]}") from error
