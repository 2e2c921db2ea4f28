"""The ports of the tuner (records, cost models, events) in a process without a database: each call is a message to the
process that has it, and its answer.

What is asked for belongs to the job: its target's fingerprint, for instance, is known to the other side.
"""

from __future__ import annotations

import socket
import threading
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain
from typing import Any

from tuner import wire
from tuner.cost_model_store import HeldOutPoint, StoredCostModel
from tuner.events import Event
from tuner.records import FailureKind, Record, Workload

# What the other side may answer: all records of a workload with their features, a cost model with its training set.
_MOST_ANSWER_BYTES = 4 * 1024**3


class Remote:
    """Asks the trusted process. Raises EOFError when it is gone: so is the job then."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def ask(self, do: str, body: Mapping[str, Any] | None = None, blobs: Sequence[bytes] = ()) -> wire.Message:
        with self._lock:
            wire.send(self._connection, {"do": do, **(body or {})}, blobs)
            answer = wire.receive(self._connection, most_bytes=_MOST_ANSWER_BYTES)
        if answer is None:
            raise EOFError("the process that this job works for is gone")
        return answer


class RemoteRecordStore:
    """A `tuner.records.RecordStore`."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def add_workload(self, workload: Workload) -> None:
        self._remote.ask("add_workload", {"given": asdict(workload)})

    def add(self, records: Sequence[Record]) -> None:
        if records:
            self._remote.ask("add_records", {"records": [vars(record) for record in records]})

    def seen(self, workload: str, *, target_fingerprint: str) -> list[Record]:
        return self._records("seen", {"workload": workload, "target_fingerprint": target_fingerprint})

    def own(self) -> list[Record]:
        return self._records("own", {})

    def training_set(self, *, target_fingerprint: str, features_version: int, limit: int) -> list[Record]:
        """Without traces, of which nothing is learned."""
        asked = {"target_fingerprint": target_fingerprint, "features_version": features_version, "limit": limit}
        return self._records("training_set", asked)

    def _records(self, do: str, asked: Mapping[str, Any]) -> list[Record]:
        answer = self._remote.ask(do, asked)
        return records_of(answer.body, answer.blobs)


class RemoteCostModelStore:
    """A `tuner.cost_model_store.CostModelStore`."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def load(self, target_fingerprint: str) -> StoredCostModel | None:
        answer = self._remote.ask("load_cost_model", {"target_fingerprint": target_fingerprint})
        given = answer.body["model"]
        if given is None:
            return None
        held_out = tuple(HeldOutPoint(**point) for point in given.pop("held_out"))
        model, samples = answer.blobs
        return StoredCostModel(**given, held_out=held_out, model=model, samples=samples)

    def save(self, model: StoredCostModel) -> int:
        given = {name: value for name, value in asdict(model).items() if name not in ("model", "samples")}
        answer = self._remote.ask("save_cost_model", {"given": given}, (model.model, model.samples))
        return int(answer.body["version"])


class RemoteSink:
    """A `tuner.events.EventSink`: the events are durable when `emit` returns."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    def emit(self, *events: Event) -> None:
        self._remote.ask("emit", {"events": [{"kind": event.kind, "data": event.data()} for event in events]})


def records_as_message(records: Sequence[Record], *, traces: bool = True) -> tuple[dict[str, Any], tuple[bytes]]:
    """Records that come out of a store, as JSON and one byte string: their features, which are the most of them, and
    were float32 there."""
    features = array("f", chain.from_iterable(record.features for record in records))
    told = [vars(record) | {"features": len(record.features)} for record in records]
    if not traces:
        told = [each | {"trace": ""} for each in told]
    return {"records": told}, (features.tobytes(),)


def records_of(body: Mapping[str, Any], blobs: Sequence[bytes]) -> list[Record]:
    """The inverse."""
    features = array("f")
    features.frombytes(blobs[0])
    records, start = [], 0
    for told in body["records"]:
        end = start + told["features"]
        given = {
            "decisions": tuple(tuple(decision) for decision in told["decisions"]),
            "features": tuple(features[start:end]),
            "failure": FailureKind(told["failure"]) if told["failure"] else None,
        }
        records.append(Record(**told | given))
        start = end
    return records
