"""Side-by-side timing: fair turns, slow networks within the budget, and the promotion rule."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests import models
from tests.tuner.networks import Network, compile_model
from tuner import compare as compare_module
from tuner.compare import Contender, Latency, choose, compare
from tuner.errors import WorkerError
from tuner.network_process import NetworkProcess, RunnableNetwork
from tuner.roofline import measured_roofline
from tuner.roofline_kernels import describe_roofline
from tuner.spinning import is_awake, wait_until_asleep
from tuner.targets import host_target


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return compile_model(models.convolutional(), tmp_path_factory.mktemp("network"))


def latency(median_us: float, *, spread_us: float = 1.0, runs: int = 100) -> Latency:
    return Latency(median_us=median_us, spread_us=spread_us, runs=runs, rounds=10, threads=2, load_s=0.1)


def test_both_kinds_are_timed_in_turns(network: Network) -> None:
    contenders = {
        "ours": Contender(path=network.module),
        "again": Contender(path=network.module),
        "onnxruntime": Contender(path=network.onnx_path, kind="onnxruntime"),
    }
    started = time.monotonic()
    measured = compare(contenders, network.imported.inputs, network.samples[0], threads=2, time_budget_s=4)
    assert time.monotonic() - started < 30
    assert list(measured) == ["ours", "again", "onnxruntime"]
    for found in measured.values():
        assert found.threads == 2
        assert found.rounds >= 2
        assert found.runs >= 10
        assert 0 < found.spread_us < found.median_us
        assert 0 < found.load_s < 60
    assert abs(measured["ours"].rounds - measured["onnxruntime"].rounds) <= 1


def test_what_is_still_loaded_is_asked_afterwards(network: Network) -> None:
    found, took_s = [], []

    def afterwards(networks: Mapping[str, RunnableNetwork]) -> None:
        started = time.monotonic()
        found.append(measured_roofline(describe_roofline(host_target()), networks["ours"].best_us))
        took_s.append(time.monotonic() - started)
        with pytest.raises(WorkerError, match="could not be run"):
            networks["ours"].best_us("no_such_kernel", [[1]])

    contenders = {"ours": Contender(path=network.module)}
    arguments = (network.imported.inputs, network.samples[0])
    threads = host_target().threads
    measured = compare(contenders, *arguments, threads=threads, time_budget_s=0.5, afterwards=afterwards)
    assert measured["ours"].median_us > 0
    (roofline,) = found
    assert 1 < roofline.peak_gflops < 1e5
    assert 0.1 < roofline.bandwidth_gb_s < 1e4
    assert took_s[0] < 10


def test_nobody_is_timed_beside_threads_that_still_spin(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    time_us, processes, beside = NetworkProcess.time_us, set[NetworkProcess](), []

    def timed(self: NetworkProcess, runs: int) -> list[float]:
        processes.add(self)
        beside.extend(each.name for each in processes - {self} if is_awake(each._program._child.pid))
        return time_us(self, runs)

    monkeypatch.setattr(NetworkProcess, "time_us", timed)
    contenders = {
        "spinning": Contender(path=network.module, program="tests.tuner.spinner"),
        "onnxruntime": Contender(path=network.onnx_path, kind="onnxruntime"),
    }
    measured = compare(contenders, network.imported.inputs, network.samples[0], threads=1, time_budget_s=3)
    assert measured["onnxruntime"].rounds >= 2
    assert beside == []


def test_who_spins_for_ever_is_not_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        wait_until_asleep(child.pid, within_s=0.2)
        assert is_awake(child.pid)
        child.kill()
    wait_until_asleep(child.pid)  # nor who has ended


class _Slow:
    """A network of a second a run, on a clock of its own."""

    def __init__(self, clock: list[float], run_s: float) -> None:
        self.clock, self.run_s, self.load_s, self.first_run_us, self.calls = clock, run_s, 0.1, 0.0, 0

    def __enter__(self) -> _Slow:
        return self

    def __exit__(self, *_: object) -> None: ...

    def rest(self) -> None: ...

    def run(self, *_: object) -> list[object]:
        self.time_us(1)
        self.first_run_us = self.run_s * 1e6
        return []

    def time_us(self, runs: int) -> list[float]:
        self.calls += runs
        self.clock[0] += runs * self.run_s
        return [self.run_s * 1e6] * runs


def test_a_very_slow_network_gets_few_runs_and_the_fast_one_all_its_rounds(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    started = {"naive": _Slow(clock, 20.0), "tuned": _Slow(clock, 0.05)}
    monkeypatch.setattr(compare_module, "NetworkProcess", lambda *_, name, **__: started[name])
    monkeypatch.setattr(compare_module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(compare_module.time, "sleep", lambda seconds: None)
    contenders = {name: Contender(path=network.module) for name in started}
    measured = compare(contenders, network.imported.inputs, network.samples[0], threads=1, time_budget_s=30)
    assert measured["naive"].median_us == 20e6
    assert started["naive"].calls == 1
    assert measured["tuned"].rounds >= 10
    assert clock[0] < 60


def test_a_crashed_network_is_an_error_that_names_it(network: Network) -> None:
    from tuner.errors import WorkerError

    with NetworkProcess(network.module, kind="tvm", threads=1, name="tuned") as process:
        process._program._child.kill()
        process._program._child.wait()
        with pytest.raises(WorkerError, match="tuned ended with signal 9") as raised:
            process.time_us(1)
    assert raised.value.code == "network_crashed"


def test_only_a_gain_beyond_the_noise_is_promoted() -> None:
    untuned = latency(1000.0)
    assert choose(untuned=untuned, tuned=latency(900.0)) == "improved"
    assert choose(untuned=untuned, tuned=latency(997.0)) == "no_improvement"
    assert choose(untuned=untuned, tuned=latency(1000.0)) == "no_improvement"
    assert choose(untuned=untuned, tuned=latency(1100.0)) == "no_improvement"
    noisy = replace(latency(950.0), spread_us=200.0, runs=4)
    assert choose(untuned=untuned, tuned=noisy) == "no_improvement"
