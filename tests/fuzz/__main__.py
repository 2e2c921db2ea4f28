"""``python -m tests.fuzz``: run very many cases against the gate and the compiler, and print what became of them.

Results are appended to a file, case by case; run again, it goes on where it stopped. With ``--write`` the table takes
its place in docs/security.md.
"""

from __future__ import annotations

import argparse
import json
import queue
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import onnx
import tvm

from tests.fuzz.cases import make_case
from tests.fuzz.gate_process import ROOT, Gate, Kind, Outcome
from tests.fuzz.table import Result, as_markdown, write_into

_TOLD = (Kind.CRASHED, Kind.FAULT, Kind.TIMED_OUT, Kind.OUT_OF_MEMORY)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=50_000, help="how many; they are numbered from --first")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "fuzz.jsonl")
    parser.add_argument("--write", action="store_true", help="put the table into docs/security.md")
    given = parser.parse_args()
    given.results.parent.mkdir(parents=True, exist_ok=True)
    wanted = range(given.first, given.first + given.cases)
    known = {result.number: result for result in _read(given.results) if result.number in wanted}
    _run([number for number in wanted if number not in known], given.results, workers=given.workers)
    results = sorted(
        (result for result in _read(given.results) if result.number in wanted), key=lambda each: each.number
    )
    text = (
        f"{as_markdown(results)}\n\nTVM {tvm.__version__}, onnx {onnx.__version__}; cases {wanted[0]} to {wanted[-1]}."
    )
    print(text)
    if given.write:
        write_into(ROOT / "docs" / "security.md", text)
    return int(any(result.outcome.kind == Kind.FAULT for result in results))


def _run(numbers: list[int], path: Path, *, workers: int) -> None:
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        left.put(number)
    lock = threading.Lock()

    def work() -> None:
        with Gate() as gate:
            while True:
                try:
                    case = make_case(left.get_nowait())
                except queue.Empty:
                    return
                result = Result(
                    number=case.number, kind=case.kind, origin=case.origin, outcome=gate.answer(case.content)
                )
                with lock, path.open("a") as file:
                    file.write(json.dumps(asdict(result)) + "\n")
                if result.outcome.kind in _TOLD:
                    print(
                        f"case {case.number} ({case.origin}): {result.outcome.kind} {result.outcome.code}", flush=True
                    )

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _read(path: Path) -> Iterator[Result]:
    if path.exists():
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            outcome = Outcome(**{**entry["outcome"], "kind": Kind(entry["outcome"]["kind"])})
            yield Result(**{**entry, "outcome": outcome})


if __name__ == "__main__":
    sys.exit(main())
