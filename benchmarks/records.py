"""Does a database of millions of records stay as quick as a small one?

    python benchmarks/records.py [--sizes 20000,2000000] [--url postgresql://…]

Makes a database of each size out of records that a real search of ten seconds measured, a thousand for each workload,
and times on it what jobs and people do, the median of five:

* ``job_start_s``: the training set of a job and what is known of its twenty tasks (`DatabaseRecordStore`);
* ``add_s``: storing a batch of 16 records;
* ``page_s``: the first page of the records of the target, and their counts;
* ``export_s``: the first 10,000 records as NDJSON.

The ratios are the largest size ÷ the smallest; ``bytes_per_record`` is the database's size ÷ its records. Two million
records take ten minutes and some gigabytes on disk.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from sqlalchemy import insert  # noqa: E402

from benchmarks.rows import provenance  # noqa: E402
from service.access.principal import DEFAULT_PROJECT  # noqa: E402
from service.database import Database, ProjectDatabase  # noqa: E402
from service.database.base import now  # noqa: E402
from service.database.tables import Job, Model, Workload  # noqa: E402
from service.database.upgrade import upgrade  # noqa: E402
from service.queries.records import count_records, list_records  # noqa: E402
from service.records_exchange import export_records  # noqa: E402
from service.stores import DatabaseRecordStore  # noqa: E402
from service.stores.adding import insert_records  # noqa: E402
from service.stores.packing import pack_text, to_row  # noqa: E402
from tuner.records import Record  # noqa: E402
from tuner.records import Workload as TunerWorkload  # noqa: E402

_PER_WORKLOAD = 1000
_TASKS = 20
_BATCH = 5000
_REPEATS = 5
_EXPORTED = 10_000


def measured_records(seconds: float) -> tuple[TunerWorkload, list[Record]]:
    """A real workload, and what a search of so many seconds measured of it."""
    from benchmarks.one_task import one_task
    from tuner.measure.builder import BuildPool
    from tuner.measure.runner import LocalRunner
    from tuner.records import MemoryRecordStore
    from tuner.request import Budget
    from tuner.targets import host_target

    spec, store = host_target(), MemoryRecordStore()
    with (
        BuildPool(spec, workers=spec.threads) as builder,
        LocalRunner(threads=spec.threads) as runner,
        tempfile.TemporaryDirectory() as scratch,
    ):
        tuning = one_task(
            "conv3x3",
            spec=spec,
            store=store,
            builder=builder,
            runner=runner,
            sink=_Silent(),
            scratch=Path(scratch),
            seed=1,
        )
        tuning.run(Budget(trials=None, time_limit_s=seconds))
    return tuning.tasks[0].workload, store.own()


class _Silent:
    def emit(self, *events: object) -> None:
        """Nobody looks."""


def fill(database: ProjectDatabase, size: int, workload: TunerWorkload, records: list[Record]) -> None:
    """``size`` records of one target: the given ones over and over, under as many workloads as that makes."""
    upgrade(database)
    keys = [f"{index:064x}" for index in range(-(-size // _PER_WORKLOAD))]
    module, moment = pack_text(workload.module_json), now()
    common = {"tvm_version": workload.tvm_version, "name": workload.name, "flops": workload.flops, "module": module}
    with database.write() as session:
        session.add(Model(id="0" * 64, name="m", filename="m", size_bytes=1))
        session.flush()
        session.add(Job(id="j", model_id="0" * 64, target="host", target_fingerprint="f", target_spec={}))
        rows = [{"project": database.project, "key": key, "created_at": moment, **common} for key in keys]
        session.execute(insert(Workload), rows)
    measured = [to_row(record, job_id=None, number=None, task="") | {"created_at": moment} for record in records]
    repeated = itertools.cycle(measured)
    made: Iterator[dict[str, Any]] = (
        {**next(repeated), "workload": keys[number % len(keys)]} for number in range(size)
    )
    while batch := list(itertools.islice(made, _BATCH)):
        with database.write() as session:
            insert_records(session, batch)


def measure(database: ProjectDatabase, size: int, records: list[Record]) -> dict[str, Any]:
    """One row: the database's size and the times on it."""
    store = DatabaseRecordStore(database, "j")
    target, version = records[0].target_fingerprint, records[0].features_version
    keys = [f"{index:064x}" for index in range(_TASKS)]

    def start() -> None:
        store.training_set(target_fingerprint=target, features_version=version, limit=2_000)
        for key in keys:
            store.seen(key, target_fingerprint=target)

    def page() -> None:
        list_records(database, target_fingerprint=target)
        count_records(database, target_fingerprint=target)

    def export() -> None:
        for _ in itertools.islice(export_records(database, target=target), _EXPORTED):
            pass

    batch = [replace(record, workload=keys[0]) for record in itertools.islice(itertools.cycle(records), 16)]
    return {
        "records": size,
        **provenance(),
        "bytes_per_record": round(database.size_bytes() / size),
        "job_start_s": _median_s(start),
        "page_s": _median_s(page),
        "export_s": _median_s(export),
        "add_s": _median_s(lambda: store.add(batch)),
    }


def _median_s(action: Callable[[], None]) -> float:
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - started)
    return round(statistics.median(seconds), 5)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", default="20000,2000000", help="records of each database")
    parser.add_argument("--url", help="an empty PostgreSQL database, for one size; SQLite files otherwise")
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.sizes.split(",")]
    workload, records = measured_records(10.0)
    print(f"{len(records)} measured records to fill with", file=sys.stderr, flush=True)
    rows = []
    with tempfile.TemporaryDirectory(prefix="records-") as folder:
        for size in sizes:
            whole = Database(arguments.url or f"sqlite:///{folder}/{size}.sqlite3")
            database = whole.of_project(DEFAULT_PROJECT)
            started = time.monotonic()
            fill(database, size, workload, records)
            print(f"filled {size} in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            rows.append(measure(database, size, records))
            database.close()
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    first, last = rows[0], rows[-1]
    times = ("job_start_s", "page_s", "export_s", "add_s")
    ratios = {f"{key.removesuffix('_s')}_ratio": round(last[key] / first[key], 2) for key in times}
    print(json.dumps({**ratios, "bytes_per_record": last["bytes_per_record"], "rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
