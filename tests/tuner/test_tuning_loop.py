"""The search's loop on fakes: what it proposes, every failure, and every step at which it can be cut off. No TVM."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tests.tuner.scripted import SMALL, TARGET, Bench, StepSink, StepStore
from tests.tuner.search.spaces import latency_us, matmul_space
from tuner.events import TrialMeasured
from tuner.measure.jobs import Decisions
from tuner.records import FailureKind, Record
from tuner.request import Budget
from tuner.search.draft import Draft
from tuner.search.features import FEATURES_VERSION, Featurizer
from tuner.search.loop import Batch
from tuner.tuning import machine_of

ROOT = Path(__file__).resolve().parents[2]


def unrolled(decisions: Decisions) -> bool:
    return decisions[3] == (2,)


def earlier_work(count: int) -> list[Record]:
    """Records of a workload that these searches do not have, more than the ranker takes at once."""
    space = matmul_space(128)
    genomes = space.random(count, np.random.default_rng(0))
    rows = Featurizer([space], flops=2.0 * 128**3, machine=machine_of(TARGET))(0, genomes)
    return [
        Record(
            workload="earlier",
            target_fingerprint=TARGET.fingerprint,
            variant=space.variant,
            decisions=space.decisions(genome),
            trace=str(index),
            latency_us=latency_us(space, Draft(space=0, genome=genome)),
            features=tuple(row.tolist()),
            features_version=FEATURES_VERSION,
        )
        for index, (genome, row) in enumerate(zip(genomes, rows, strict=True))
    ]


def proposals(scratch: Path, *, seed: int) -> list[Decisions]:
    store = StepStore(earlier=earlier_work(800))
    bench = Bench(scratch=scratch, seed=seed, names=("often", "once"), store=store)
    bench.tuning().run(Budget(trials=96))
    assert len(bench.builder.proposed) == 96
    return bench.builder.proposed


def digest(proposed: list[Decisions]) -> str:
    return hashlib.sha256(repr(proposed).encode()).hexdigest()


def test_one_seed_gives_one_sequence_of_proposals_and_another_seed_another(tmp_path: Path) -> None:
    first = proposals(tmp_path, seed=3)
    assert proposals(tmp_path, seed=3) == first
    other = proposals(tmp_path, seed=4)
    assert not set(first[8:16]) & set(other), "the random half of the first batch follows from the seed"
    assert len(set(first) & set(other)) < 48


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_process_without_tvm_proposes_the_same(tmp_path: Path, hash_seed: str) -> None:
    code = """
import sys
from pathlib import Path

class NoTVM:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tvm", "tvm_ffi"):
            raise ImportError(f"{name} was asked for")

sys.meta_path.insert(0, NoTVM())
from tests.tuner.test_tuning_loop import digest, proposals
print(digest(proposals(Path(sys.argv[1]), seed=3)))
assert not {"tvm", "tvm_ffi"} & sys.modules.keys()
"""
    there = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert there.returncode == 0, there.stderr
    assert there.stdout.strip() == digest(proposals(tmp_path, seed=3))


@pytest.mark.parametrize("kind", FailureKind)
@pytest.mark.parametrize("where", ["builder", "runner"])
def test_a_failure_is_a_record_and_the_search_goes_on(tmp_path: Path, where: str, kind: FailureKind) -> None:
    bench = Bench(scratch=tmp_path, config=SMALL)
    getattr(bench, where).fate = lambda decisions: kind if unrolled(decisions) else None
    summary = bench.tuning().run(Budget(trials=60))
    records = bench.store.own()
    assert summary.trials == len(records) == 60
    assert summary.ended_by == "budget"
    failed = [record for record in records if record.failure is not None]
    assert 0 < len(failed) == summary.failures < 60
    assert all(unrolled(record.decisions) == (record.failure is kind) for record in records)
    assert all(record.latency_us is None and str(kind) in record.failure_message for record in failed)
    told = [event for event in bench.sink.events if isinstance(event, TrialMeasured)]
    assert [event.failure for event in told] == [record.failure for record in records]
    assert told[-1].task_best_us == min(record.latency_us for record in records if record.latency_us)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["builder", "runner"])
def test_a_search_in_which_everything_fails_spends_its_budget(tmp_path: Path, where: str) -> None:
    bench = Bench(scratch=tmp_path, config=SMALL)
    getattr(bench, where).fate = lambda decisions: FailureKind.RUN_ERROR
    summary = bench.tuning().run(Budget(trials=24))
    assert (summary.trials, summary.failures, summary.ended_by) == (24, 24, "budget")
    assert summary.drift is None
    assert summary.estimated_us > 0
    assert list(tmp_path.iterdir()) == []


class Cut:
    """Raises at the step with that number, counted from 1."""

    def __init__(self, at: int, error: type[BaseException]) -> None:
        self.at, self.error, self.steps, self.raised_in = at, error, 0, ""

    def __call__(self, what: str) -> None:
        self.steps += 1
        if self.steps == self.at:
            self.raised_in = what
            raise self.error("cut off")


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, OSError])
def test_a_search_cut_off_at_any_step_goes_on_where_it_was(tmp_path: Path, error: type[BaseException]) -> None:
    raised_in = set()
    for at in itertools.count(1):
        cut = Cut(at, error)
        bench = Bench(scratch=tmp_path, config=SMALL, sink=StepSink(cut))
        bench.store.step = bench.builder.step = bench.runner.step = cut
        try:
            bench.tuning().run(Budget(trials=12))
        except error:
            raised_in.add(cut.raised_in)
        else:
            break
        stored = bench.store.own()
        assert list(tmp_path.iterdir()) == [], f"files were left behind in step {at}, {cut.raised_in}"
        whole = [0, *itertools.accumulate(bench.builder.batches)]
        assert len(stored) in whole[-2:], "more than one batch was lost, or a part of one was kept"
        told = [event.number for event in bench.sink.events if isinstance(event, TrialMeasured)]
        assert told == list(range(1, len(told) + 1))
        assert len(told) <= len(stored)

        bench.store.step = lambda what: None
        again = Bench(scratch=tmp_path, config=SMALL, store=bench.store)
        summary = again.tuning().run(Budget(trials=12))
        assert (summary.trials, summary.ended_by) == (12, "budget")
        assert len(again.builder.proposed) == 12 - len(stored)
        assert len({record.decisions for record in bench.store.own()}) == 12, "a stored candidate was measured again"
        told = [event.number for event in again.sink.events if isinstance(event, TrialMeasured)]
        assert told == list(range(len(stored) + 1, 13))
        assert list(tmp_path.iterdir()) == []
    assert raised_in == {"build", "run", "before records", "after records", "event"}
    assert at > 40


def test_a_schedule_found_wrong_is_not_recalled_as_the_best(tmp_path: Path) -> None:
    first = Bench(scratch=tmp_path, config=SMALL)
    first.tuning().run(Budget(trials=12))
    best = min(first.store.own(), key=lambda record: record.latency_us or 0.0)
    wrong = Record(
        workload=best.workload,
        target_fingerprint=best.target_fingerprint,
        variant=best.variant,
        decisions=best.decisions,
        trace=best.trace,
        failure=FailureKind.WRONG_RESULT,
    )
    second = Bench(scratch=tmp_path, config=SMALL, store=StepStore(earlier=[*first.store.own(), wrong]))
    second.tuning().run(Budget(trials=4))
    recalled = next(event for event in second.sink.events if event.kind == "recall")
    others = [record.latency_us for record in first.store.own() if record.trace != best.trace and record.latency_us]
    assert recalled.best_us == min(others) > (best.latency_us or 0.0)
    known = {record.decisions for record in first.store.own()}
    assert not known & set(second.builder.proposed)


def test_first_looks_at_several_tasks_are_built_together(tmp_path: Path) -> None:
    bench = Bench(scratch=tmp_path, names=tuple("abcdefgh"))
    bench.tuning().run(Budget(trials=64))
    assert bench.builder.batches[0] == 16
    assert len(set(bench.builder.tasks[:16])) == 4
    assert len(bench.builder.proposed) == 64


def test_the_next_round_is_drafted_while_one_is_built(tmp_path: Path) -> None:
    bench = Bench(scratch=tmp_path, names=tuple("abcdefgh"))
    tuning = bench.tuning()
    ahead, propose, proposed, waited = threading.Event(), tuning.loop.propose, [0], []

    def noted(trials_left: int) -> Batch | None:
        if proposed[0] >= 16:
            ahead.set()
        batch = propose(trials_left)
        proposed[0] += len(batch.drafts) if batch else 0
        return batch

    tuning.loop.propose = noted  # type: ignore[method-assign]
    bench.builder.step = lambda what: waited.append(ahead.wait(10))
    tuning.run(Budget(trials=64))
    assert waited
    assert all(waited)
