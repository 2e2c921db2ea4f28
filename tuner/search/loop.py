"""The tuning loop as a pure state machine: `propose` says what to measure next, `observe` takes what came of it.

No TVM, no clock, no process: workers are plugged in by `tuner.tuning`, fakes by the tests. Task choice follows the
gradient idea of Ansor (Zheng et al., OSDI 2020, §6): small batches, each spent on the task whose next batch is expected
to save the most network latency per second of measuring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import DecisionSpace, Genomes
from tuner.records import FailureKind, Record, failed_traces
from tuner.search.alternatives import Use, expected_calls, network_us, totals_us
from tuner.search.draft import Draft, DraftConfig, Drafter, Scorer
from tuner.search.feasibility import Feasibility
from tuner.search.features import Featurizer, Machine, analytic_scores
from tuner.search.relatives import Measured, assembled_drafts, fastest, related_drafts, stage_tiles

# What an unmeasured task is assumed to take, for estimates and for the order of first visits.
_ASSUMED_GFLOPS_PER_THREAD = 5.0
_ASSUMED_LAUNCH_US = 3.0
# Rows of the chosen task, and of all others, that the ranker is trained on before a batch: bounds training to ~0.2 s.
_OWN_ROWS, _OTHER_ROWS = 800, 600
_MIN_TRAINING_ROWS = 16
_GUESS = DraftConfig(noise=1e-6)


class Ranker(Protocol):
    """Scores feature rows; higher is faster (log2 of throughput). See `tuner.cost_model`."""

    def fit(
        self, features: NDArray[np.float32], latency_us: NDArray[np.float64], workloads: NDArray[np.str_]
    ) -> None: ...

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float64]: ...


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """``batch`` candidates per proposal; of a task that was never measured ``first_batch`` at least, and
    ``first_trained_batch`` where a stored cost model chooses them. ``stop_gain`` ends the search when no batch is
    expected to save that share of the network's latency."""

    batch: int = 16
    first_batch: int = 4
    first_trained_batch: int = 2
    stop_gain: float = 0.0005
    draft: DraftConfig = field(default_factory=DraftConfig)


@dataclass(frozen=True, kw_only=True, eq=False)
class SearchTask:
    """A task as the loop sees it: identity, what uses it, work, and its design spaces."""

    key: str
    workload: str
    uses: tuple[Use, ...]
    flops: float
    spaces: list[DecisionSpace]


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Candidates of one task to measure next."""

    task: SearchTask
    drafts: list[Draft]


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
    """What became of one draft: ``draft`` as replayed (TVM repairs decisions), its latency or None on failure.

    ``cost_s`` are the seconds that it took to build and to run, ``build_s`` the first of them where they are known.
    """

    draft: Draft
    latency_us: float | None
    cost_s: float
    failure: FailureKind | None = None
    build_s: float | None = None


@dataclass(eq=False)
class _TaskState:
    task: SearchTask
    drafter: Drafter
    featurizer: Featurizer
    best_us: float | None = None
    trials: int = 0
    batches: int = 0
    is_pending: bool = False
    cost_s: float = 0.0
    best_after_batch: list[float] = field(default_factory=list)
    features: list[NDArray[np.float32]] = field(default_factory=list)
    latency_us: list[float] = field(default_factory=list)
    fastest: list[Measured] = field(default_factory=list)
    feasibility: Feasibility = field(default_factory=Feasibility)


class SearchLoop:
    """Spends a budget of trials over tasks. Seeded and deterministic for given outcomes.

    ``ranker`` is trained anew for every batch; ``trained``, the target's stored cost model, chooses the first batches
    of tasks that were never measured.
    """

    def __init__(
        self,
        tasks: Sequence[SearchTask],
        ranker: Ranker,
        *,
        machine: Machine,
        seed: int,
        config: LoopConfig | None = None,
        trained: Ranker | None = None,
    ) -> None:
        self._trained = trained
        self._config = config or LoopConfig()
        self._machine = machine
        self._ranker = ranker
        self._seed = seed
        self._rng = np.random.default_rng(seed)
        self._other_features: list[NDArray[np.float32]] = []
        self._other_latency_us: list[float] = []
        self._other_workloads: list[str] = []
        self._stored: dict[str, list[Measured]] = {}
        self._exhausted = False
        self._states = {
            task.key: _TaskState(
                task=task,
                drafter=Drafter(task.spaces, seed=seed + 7919 * index, config=self._config.draft),
                featurizer=Featurizer(task.spaces, flops=task.flops, machine=machine),
            )
            for index, task in enumerate(tasks)
        }

    @property
    def exhausted(self) -> bool:
        """Whether the last `propose` found nothing left that was not proposed before."""
        return self._exhausted

    def best_us(self, key: str) -> float | None:
        """The best latency known of a task, None before its first success."""
        return self._states[key].best_us

    def estimated_us(self) -> float:
        """The network's latency with the best schedules known: Σ calls × best, an assumed rate where none is known."""
        return network_us(self._latencies_us())

    def learn_from_other_work(self, records: Sequence[Record]) -> None:
        """Teach the ranker from records of any workload on this target (features of this version)."""
        for record in records:
            if record.features and record.latency_us is not None:
                self._other_features.append(np.array(record.features, dtype=np.float32))
                self._other_latency_us.append(record.latency_us)
                self._other_workloads.append(record.workload)
                measured = Measured(
                    variant=record.variant,
                    decisions=record.decisions,
                    features=self._other_features[-1],
                    latency_us=record.latency_us,
                )
                self._stored[record.workload] = fastest([*self._stored.get(record.workload, []), measured])

    def recall(self, key: str, records: Sequence[Record]) -> None:
        """Start a task from what is stored of its workload: nothing is proposed twice, the best are parents.

        A schedule that was timed and found wrong later only counts as failed.
        """
        state = self._states[key]
        failed = failed_traces(records)
        found: list[Outcome] = []
        for record in records:
            draft = self._draft_of(state, record)
            if draft is not None and (record.failure is not None or record.trace not in failed):
                found.append(
                    Outcome(draft=draft, latency_us=record.latency_us, cost_s=record.cost_s, failure=record.failure)
                )
        self._note(state, found)
        if state.best_us is not None:
            # What earlier jobs spent counts as visits, so that the budget goes where less is known.
            state.batches = 1 + len(records) // self._config.batch
            state.best_after_batch = [state.best_us] * 2

    def propose(self, trials_left: int) -> Batch | None:
        """The next batch of at most ``trials_left`` candidates; None when no task is worth another batch.

        It may be asked before what it proposed was observed. A task has one batch at a time: while its first one is
        pending others are proposed, later None where its next one would be worth most.
        """
        open_states = [
            state
            for state in self._states.values()
            if not state.drafter.exhausted and state.task.spaces and not (state.is_pending and state.best_us is None)
        ]
        while open_states and trials_left > 0:
            totals = totals_us(self._latencies_us())
            unmeasured = {use.alternative for s in open_states if s.best_us is None for use in s.task.uses}
            gains = {
                state.task.key: expected_calls(state.task, totals, unmeasured=unmeasured)
                * self._expected_gain_us(state)
                for state in open_states
            }
            if max(gains.values()) < self._config.stop_gain * self.estimated_us():
                return None
            state = max(open_states, key=lambda state: gains[state.task.key] / self._trial_cost_s(state))
            if state.is_pending:
                return None
            drafts = self._draft(state, min(self._batch_size(state, trials_left), trials_left))
            if drafts:
                state.is_pending = True
                return Batch(task=state.task, drafts=drafts)
            open_states.remove(state)
        self._exhausted = trials_left > 0 and not any(state.is_pending for state in self._states.values())
        return None

    def observe(self, batch: Batch, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of a proposed batch, in any order; fewer than proposed is fine (a cut-off batch)."""
        state = self._states[batch.task.key]
        state.is_pending = False
        self._note(state, outcomes)
        state.cost_s += sum(outcome.cost_s for outcome in outcomes)
        state.trials += len(outcomes)
        state.batches += 1
        if state.best_us is not None:
            state.best_after_batch.append(state.best_us)

    @property
    def guessed_by(self) -> str:
        """What ranks the candidates of a task that was never measured: ``cost_model``, or ``analytic`` scores alone
        while it knows too little."""
        rows = len(self._other_latency_us) + sum(len(state.latency_us) for state in self._states.values())
        return "cost_model" if self._trained is not None or rows >= _MIN_TRAINING_ROWS else "analytic"

    def guesses(self, key: str, count: int) -> list[Draft]:
        """What a task is built with unmeasured: the candidates that everything learned so far ranks first.

        Nothing here counts as proposed.
        """
        state = self._states[key]
        drafter = Drafter(state.task.spaces, seed=self._seed, config=_GUESS)
        return drafter.propose(2 * count, self._scorer(state), exploration=_GUESS.exploration)[:count]

    def features(self, key: str, drafts: Sequence[Draft]) -> NDArray[np.float32]:
        """The cost model's rows of drafts, in their order: what their records store."""
        return self._states[key].featurizer.rows(drafts)

    def _note(self, state: _TaskState, outcomes: Sequence[Outcome]) -> None:
        rows = state.featurizer.rows([outcome.draft for outcome in outcomes])
        for outcome, row in zip(outcomes, rows, strict=True):
            state.drafter.remember(outcome.draft, outcome.latency_us)
            if outcome.failure is not FailureKind.DEVICE_LOST:  # says nothing of the candidate
                state.feasibility.note(row, latency_us=outcome.latency_us, build_s=outcome.build_s)
            if outcome.latency_us is not None:
                state.features.append(row)
                state.latency_us.append(outcome.latency_us)
                space = state.task.spaces[outcome.draft.space]
                decisions = space.decisions(outcome.draft.genome)
                measured = Measured(
                    variant=space.variant,
                    decisions=decisions,
                    features=row,
                    latency_us=outcome.latency_us,
                    tiles=stage_tiles(space, decisions),
                )
                state.fastest = fastest([*state.fastest, measured])
        state.best_us = min(state.latency_us, default=None)

    @staticmethod
    def _draft_of(state: _TaskState, record: Record) -> Draft | None:
        for index, space in enumerate(state.task.spaces):
            if space.variant == record.variant:
                genome = space.genome(record.decisions)
                return None if genome is None else Draft(space=index, genome=genome)
        return None

    def _draft(self, state: _TaskState, count: int) -> list[Draft]:
        others = [other.fastest for other in self._states.values() if other is not state] + [*self._stored.values()]
        first = assembled_drafts(others, state.task.spaces)
        if not state.batches:
            first += related_drafts(others, state.task.spaces, state.featurizer)
        return state.drafter.propose(count, self._scorer(state), exploration=self._exploration(state), first=first)

    def _exploration(self, state: _TaskState) -> float:
        """The share of a batch that is random. A stored model is believed at first: what it takes for the best teaches
        most where there is time for a few candidates of each task only."""
        if self._trained is not None and not state.batches:
            return 0.0
        cold = len(state.latency_us) < _MIN_TRAINING_ROWS
        return self._config.draft.cold_exploration if cold else self._config.draft.exploration

    def _scorer(self, state: _TaskState) -> Scorer:
        cold = len(state.latency_us) < _MIN_TRAINING_ROWS
        ranker = self._trained if self._trained is not None and not state.latency_us else self._teach(state)

        doubts = state.feasibility.doubts()

        def score(space_index: int, genomes: Genomes) -> NDArray[np.float64]:
            prior = analytic_scores(state.task.spaces[space_index], genomes, self._machine)
            if ranker is None and doubts is None:
                return 0.3 * prior
            rows = state.featurizer(space_index, genomes)
            # With next to no measurement of this very task the model only knows relatives: the prior keeps a say.
            scores = 0.3 * prior if ranker is None else ranker.predict(rows) + (0.15 * prior if cold else 0.0)
            return scores if doubts is None else scores + doubts(rows)

        return score

    def _teach(self, state: _TaskState) -> Ranker | None:
        """The ranker, trained for a batch of ``state`` on all of its rows and a bounded sample of the others'; None
        while there are too few."""
        features = [*self._other_features]
        latency_us = [*self._other_latency_us]
        workloads = [*self._other_workloads]
        for other in self._states.values():
            if other is not state:
                features += other.features
                latency_us += other.latency_us
                workloads += [other.task.workload] * len(other.latency_us)
        chosen = np.arange(len(features))
        if len(chosen) > _OTHER_ROWS:
            chosen = self._rng.choice(chosen, _OTHER_ROWS, replace=False)
        own = slice(-_OWN_ROWS, None)
        rows = [features[i] for i in chosen] + state.features[own]
        if len(rows) < _MIN_TRAINING_ROWS:
            return None
        self._ranker.fit(
            np.stack(rows),
            np.array([latency_us[i] for i in chosen] + state.latency_us[own]),
            np.array([workloads[i] for i in chosen] + [state.task.workload] * len(state.latency_us[own])),
        )
        return self._ranker

    def _batch_size(self, state: _TaskState, trials_left: int) -> int:
        if state.batches:
            # The more is known of a task, the less one batch teaches: training and waiting for the slowest build are
            # spread over more candidates.
            size = int(np.clip(len(state.latency_us) // 8, self._config.batch, 3 * self._config.batch))
            if trials_left >= 4 * size:
                return size
            return self._config.batch if trials_left >= 4 * self._config.batch else max(8, self._config.batch // 2)
        unvisited = sum(1 for other in self._states.values() if not other.batches)
        if self._trained is not None:
            return int(np.clip(trials_left / (8 * unvisited), self._config.first_trained_batch, self._config.batch))
        return int(np.clip(trials_left / (2 * unvisited), self._config.first_batch, self._config.batch))

    def _latencies_us(self) -> list[tuple[SearchTask, float]]:
        return [(state.task, self._known_or_assumed_us(state)) for state in self._states.values()]

    def _known_or_assumed_us(self, state: _TaskState) -> float:
        if state.best_us is not None:
            return state.best_us
        return _ASSUMED_LAUNCH_US + state.task.flops / (_ASSUMED_GFLOPS_PER_THREAD * self._machine.threads * 1e3)

    def _expected_gain_us(self, state: _TaskState) -> float:
        """What the next batch of a task is expected to take off one call of it.

        Looking back: what the last two batches saved. Looking ahead: improvements thin out as 1/batches², and never
        beyond the best rate that any task of this network reached.
        """
        if state.best_us is None:
            return self._known_or_assumed_us(state) / (1 + state.batches) ** 2
        batches = state.batches + state.is_pending
        rates = [s.task.flops / s.best_us for s in self._states.values() if s.best_us]
        room_us = max(0.02 * state.best_us, state.best_us - state.task.flops / (1.1 * max(rates)))
        ahead_us = min(room_us, state.best_us * 0.3 / max(1, batches) ** 2)
        back_us = 0.0
        if len(state.best_after_batch) >= 3:
            back_us = max(0.0, state.best_after_batch[-3] - state.best_us) / 2
        return max(ahead_us, 0.5 * (ahead_us + back_us))

    def _trial_cost_s(self, state: _TaskState) -> float:
        """Seconds that a trial of this task takes: its own average, the average of all before its first one."""
        trials = sum(other.trials for other in self._states.values())
        spent_s = sum(other.cost_s for other in self._states.values())
        if state.trials:
            return max(0.01, state.cost_s / state.trials)
        return max(0.01, spent_s / trials) if trials else 1.0
