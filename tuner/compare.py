"""Side-by-side latency of whole networks: interleaved rounds, one process each, explicit thread counts."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from tuner.board_process import BoardProcess
from tuner.frontend.tensors import TensorSpec
from tuner.network_process import CONTENDER, Kind, NetworkProcess, RunnableNetwork, Sample

# The caches were somebody else's: ResNet-18 (47 MB of weights) took 9.0, 8.9, 8.5, 7.7, 7.6 ms before it stayed at 6.6.
_WARM_UP_US = 60_000.0
_TURN_US = 60_000.0
_SLOW_FRACTION = 0.1
_MAX_ROUNDS = 15
_MAX_RUNS_PER_TURN = 50


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A network to be timed: a compiled ``module.so`` (kind ``tvm``) or an ONNX file (kind ``onnxruntime``).

    Another ``program`` (see `NetworkProcess`) runs a file of that kind by another engine.
    """

    path: Path
    kind: Kind = "tvm"
    program: str = CONTENDER


@dataclass(frozen=True, kw_only=True)
class Latency:
    """``median_us`` over all timed runs, ``spread_us`` their median absolute deviation, ``load_s`` time to load."""

    median_us: float
    spread_us: float
    runs: int
    rounds: int
    threads: int
    load_s: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def compare(
    contenders: Mapping[str, Contender],
    inputs: Sequence[TensorSpec],
    sample: Sample,
    *,
    threads: int,
    time_budget_s: float = 30.0,
    board: BoardProcess | None = None,
    afterwards: Callable[[Mapping[str, RunnableNetwork]], None] | None = None,
) -> dict[str, Latency]:
    """Time the contenders in turns, A B C A B C …, on one sample with ``threads`` threads each.

    Each turn begins when everybody's threads sleep, and is about 60 ms of untimed runs and 60 ms of timed single ones.
    Ends after 15 rounds or when the budget is
    spent; loading and everybody's first run are not counted. A network so slow that
    one run takes a tenth of the budget has no untimed runs and takes part while the budget lasts; its first run
    counts, so that everybody is timed at least once. With a ``board`` that is where they run (compiled ones only).
    ``afterwards`` is called with the loaded networks behind the last turn.
    Raises `WorkerError` when a network cannot be loaded or crashes.
    """
    names = [spec.name for spec in inputs]
    with ExitStack() as stack:
        networks: dict[str, RunnableNetwork] = {}
        once_us: dict[str, float] = {}
        latencies: dict[str, list[float]] = {name: [] for name in contenders}
        rounds = dict.fromkeys(contenders, 0)
        for name, contender in contenders.items():
            network = (
                board.open(contender.path, name=name)
                if board
                else NetworkProcess(
                    contender.path, kind=contender.kind, threads=threads, name=name, program=contender.program
                )
            )
            networks[name] = stack.enter_context(network)
            network.run([sample], names, [])
        started = time.monotonic()
        for name, network in networks.items():
            _rest(networks)
            if network.first_run_us > time_budget_s * _SLOW_FRACTION * 1e6:
                once_us[name] = network.first_run_us
                latencies[name] = [network.first_run_us]
                rounds[name] = 1
            else:
                once_us[name] = network.time_us(1)[0]
        for _ in range(_MAX_ROUNDS):
            for name, network in networks.items():
                left_s = time_budget_s - (time.monotonic() - started)
                slow = rounds[name] > 0 and once_us[name] > time_budget_s * _SLOW_FRACTION * 1e6
                if rounds[name] and (left_s <= 0 or (slow and once_us[name] > left_s * 1e6 / len(networks))):
                    continue
                _rest(networks)
                latencies[name] += _turn(network, once_us[name], slow=slow)
                rounds[name] += 1
            if time.monotonic() - started > time_budget_s:
                break
        if afterwards is not None:
            _rest(networks)
            afterwards(networks)
        return {
            name: _latency(latencies[name], rounds=rounds[name], threads=threads, load_s=networks[name].load_s)
            for name in contenders
        }


def choose(*, untuned: Latency, tuned: Latency) -> str:
    """The promotion rule: ``improved`` when the tuned build is faster beyond the noise, else ``no_improvement``.

    The noise is the larger of the two spreads' standard errors and half a percent of the untuned latency: two
    builds of the same code differ by that much. The bundle holds the tuned build only when it is improved.
    """
    noise_us = max(_standard_error(untuned), _standard_error(tuned), 0.005 * untuned.median_us)
    return "improved" if tuned.median_us < untuned.median_us - noise_us else "no_improvement"


def _rest(networks: Mapping[str, RunnableNetwork]) -> None:
    for network in networks.values():
        network.rest()


def _turn(network: RunnableNetwork, once_us: float, *, slow: bool) -> list[float]:
    if slow:
        return network.time_us(1)
    untimed, timed = (max(1, min(_MAX_RUNS_PER_TURN, round(us / once_us))) for us in (_WARM_UP_US, _TURN_US))
    return network.time_us(untimed + timed)[untimed:]


def _latency(samples_us: list[float], *, rounds: int, threads: int, load_s: float) -> Latency:
    median_us = statistics.median(samples_us)
    return Latency(
        median_us=median_us,
        spread_us=statistics.median(abs(value - median_us) for value in samples_us),
        runs=len(samples_us),
        rounds=rounds,
        threads=threads,
        load_s=load_s,
    )


def _standard_error(latency: Latency) -> float:
    """Of the median, from the median absolute deviation of a normal distribution (1.4826 × 1.2533 / √n)."""
    return float(1.858 * latency.spread_us / latency.runs**0.5)
