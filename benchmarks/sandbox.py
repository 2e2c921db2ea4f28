"""What does it cost to confine the process that has the model?

    python benchmarks/sandbox.py [--model examples/digits_cnn.onnx] [--trials 96] [--rounds 6] [--starts 12]

The confined half of a job runs with ``TESSERA_SANDBOX=auto`` and ``off`` in turns, each time on new stores in memory,
through the same messages. Of whole jobs the search is timed, from its first event to the next stage, and divided by its
trials; of jobs whose model cannot be read, the way from the start to the answer, which has the start of the process and
the compiler's imports in it. Processor time is of all processes of a whole job. Which side goes first changes from
round to round; medians are compared.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from service.job_host.host import JobHost
from service.job_host.process import run_confined
from service.settings import Settings
from tuner.cost_model_store import MemoryCostModelStore
from tuner.errors import TesseraError
from tuner.events import Event, StageStarted, TrialMeasured
from tuner.records import MemoryRecordStore
from tuner.request import Budget, TuneRequest
from tuner.sandbox import Mode
from tuner.sandbox.strength import strength
from tuner.targets import host_target

_SIDES: tuple[Mode, ...] = ("auto", "off")
_MS = 1e3


class Clock:
    """A sink that keeps when the search began and ended, and how many trials it had; ``cpu_s`` is of all processes of
    the job."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.trials = 0
        self.cpu_s = 0.0

    def emit(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, StageStarted):
                self.stages[event.stage.value] = time.perf_counter()
            elif isinstance(event, TrialMeasured):
                self.trials += 1

    @property
    def trial_ms(self) -> float:
        return (self.stages["build"] - self.stages["tune"]) * _MS / self.trials


def run(mode: Mode, model: Path, trials: int, folder: Path) -> Clock:
    """One job. Raises `TesseraError`."""
    clock, spec = Clock(), host_target()
    host = JobHost(
        store=MemoryRecordStore(),
        models=MemoryCostModelStore(),
        sink=clock,
        fingerprint=spec.fingerprint,
        most_records=1_000_000,
        has_fleet=False,
    )
    request = TuneRequest(
        model_path=model, model_name=model.name, target=spec, work_dir=folder / "work", budget=Budget(trials=trials)
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with contextlib.redirect_stdout(sys.stderr):
        run_confined(Settings(data_dir=folder, sandbox=mode), "benchmark", request, host)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    clock.cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return clock


def start_ms(mode: Mode, folder: Path) -> float:
    """A job that ends at its import."""
    broken = folder / "broken.onnx"
    broken.write_bytes(b"no model")
    started = time.perf_counter()
    with contextlib.suppress(TesseraError):
        run(mode, broken, 1, folder)
    return (time.perf_counter() - started) * _MS


def in_turns(rounds: int) -> list[Mode]:
    return [side for number in range(rounds) for side in (_SIDES if number % 2 == 0 else _SIDES[::-1])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path(__file__).parents[1] / "examples" / "digits_cnn.onnx")
    parser.add_argument("--trials", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--starts", type=int, default=12)
    given = parser.parse_args()
    starts: dict[str, list[float]] = {side: [] for side in _SIDES}
    trials: dict[str, list[float]] = {side: [] for side in _SIDES}
    cpu: dict[str, list[float]] = {side: [] for side in _SIDES}
    with tempfile.TemporaryDirectory() as temporary:
        for side in in_turns(given.starts):
            starts[side].append(start_ms(side, Path(temporary)))
        for side in in_turns(given.rounds):
            clock = run(side, given.model.resolve(), given.trials, Path(temporary))
            trials[side].append(clock.trial_ms)
            cpu[side].append(clock.cpu_s)
            print(f"{side:>5}: {clock.trial_ms:.2f} ms a trial, {clock.cpu_s:.1f} s of processor time")
    start = {side: statistics.median(values) for side, values in starts.items()}
    trial = {side: statistics.median(values) for side, values in trials.items()}
    print(f"{strength()}")
    for side in _SIDES:
        print(f"{side:>5}: start {start[side]:.0f} ms, trial {trial[side]:.2f} ms")
    result = {
        "start_overhead_ms": round(start["auto"] - start["off"], 1),
        "trial_overhead": round(trial["auto"] / trial["off"] - 1, 4),
        "cpu_overhead": round(statistics.median(cpu["auto"]) / statistics.median(cpu["off"]) - 1, 4),
        "sandbox": str(strength()),
        "rows": {"start_ms": starts, "trial_ms": trials, "cpu_s": cpu},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
