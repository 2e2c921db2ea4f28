"""Every target of the catalogue: is a network built for it without measuring, and is what comes out for that machine?

    python benchmarks/targets.py [--targets raspberry-pi-4,…] [--rows FILE] [--docs docs/targets.md]

Each row is a whole job (`tuner.tune`, ``measure`` none) on the light SqueezeNet with random weights, with no records
and no cost model. ``header`` is read from the module's first bytes (of object files, the first one's), ``schedules``
counts by what the schedules of the network's functions were chosen (`tuner.plan.Plan.chosen_by`), ``numerics`` is the
largest relative error against ONNX Runtime, ``checked_on`` the machine that it was found on. ``--docs`` writes the
table into a page, between its markers.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.headers import expected_header, header
from benchmarks.networks import write_network
from benchmarks.rows import Row, measure_missing, provenance
from tuner.cost_model_store import MemoryCostModelStore
from tuner.errors import TesseraError
from tuner.events import ListSink
from tuner.records import MemoryRecordStore
from tuner.request import TuneRequest
from tuner.targets import find_target, list_targets
from tuner.tune import tune

_NETWORK = "squeezenet"
_BEGIN, _END = "<!-- table -->", "<!-- end of table -->"


def build(name: str) -> Row:
    """One row. Raises `TesseraError` where the job fails."""
    spec = find_target(name)
    with tempfile.TemporaryDirectory(prefix="targets-") as directory:
        folder = Path(directory)
        started = time.monotonic()
        request = TuneRequest(
            model_path=write_network(_NETWORK, folder),
            model_name=_NETWORK,
            target=spec,
            work_dir=folder,
            measure="none",
        )
        result = tune(request, store=MemoryRecordStore(), models=MemoryCostModelStore(), sink=ListSink())
        seconds = time.monotonic() - started
        manifest: Any = result.manifest
        found = _module_header(result.bundle, manifest["module"])
    return {
        "target": name,
        **provenance(),
        "triple": spec.triple,
        "module": manifest["module"],
        "module_bytes": manifest["files"][manifest["module"]]["size_bytes"],
        "header": found,
        "header_is_right": found == expected_header(spec.triple),
        "schedules": dict(Counter(manifest["search"]["schedules"].values())),
        "outcome": result.outcome,
        "numerics": manifest["numerics"]["max_rel_error"],
        "checked_on": manifest["numerics"]["checked_on"],
        "seconds": round(seconds, 1),
    }


def _module_header(bundle: Path, module: str) -> str:
    with tarfile.open(bundle) as archive:
        stream = archive.extractfile(module)
        assert stream is not None
        if module.endswith(".tar"):
            with tarfile.open(fileobj=stream) as objects:
                first = objects.extractfile("0.o")
                assert first is not None
                return header(first.read(20))
        return header(stream.read(20))


def table(rows: list[Row]) -> str:
    lines = [
        "| target | code for | bundle | header | schedules | checked on | seconds |",
        "|---|---|---|---|---|---|--:|",
    ]
    for row in rows:
        spec = find_target(row["target"])
        chosen = ", ".join(f"{count} {by.replace('_', ' ')}" for by, count in sorted(row["schedules"].items()))
        right = row["header"] if row["header_is_right"] else f"**wrong**: {row['header']}"
        lines.append(
            f"| `{row['target']}` | {spec.processor}, {row['triple']} | `{row['module']}` | {right} | {chosen} | "
            f"{row['checked_on']} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def write_table(page: Path, text: str) -> None:
    """Put a table between the markers of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    page.write_text(f"{before}{_BEGIN}\n\n{text}\n\n{_END}{after}", encoding="utf-8")


def main() -> int:
    names = [spec.name for spec in list_targets()]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--targets", default=",".join(names), help="comma-separated")
    parser.add_argument("--rows", type=Path, help="keep finished rows in this file (JSON lines) and go on from it")
    parser.add_argument("--docs", type=Path, help="write the table into this page")
    arguments = parser.parse_args()
    rows, complete = measure_missing(
        arguments.rows,
        {name: partial(build, name) for name in arguments.targets.split(",")},
        key_of=lambda row: row["target"],
        failures=(TesseraError,),
        show=lambda row: table([row]).splitlines()[-1],
    )
    print(table(rows))
    if arguments.docs:
        write_table(arguments.docs, table(rows))
    print(json.dumps({"rows": rows}))
    return 0 if complete and all(row["header_is_right"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
