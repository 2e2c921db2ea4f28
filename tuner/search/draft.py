"""Drafting: thousands of decision vectors sampled, mutated and crossed over, scored without replay, the best kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import DecisionSpace, Genomes

Scorer = Callable[[int, Genomes], NDArray[np.float64]]
"""Scores genomes of the space with that index; higher is better (log2 of throughput)."""


@dataclass(frozen=True, kw_only=True)
class DraftConfig:
    """How hard one batch is searched for.

    A pool per space is evolved for ``generations``, with all neighbours of the ``walked`` best measured candidates in
    it (a coordinate descent whose steps the model orders); ``exploration`` of every batch is random, so that the model
    is also taught where it never looks; ``noise`` (Gumbel, log2) varies the ranking among near-equals. Half of a cold
    batch is random: a purely analytic cold start was the worse choice on layouts that the prior misjudges.
    """

    pool: int = 1536
    generations: int = 3
    exploration: float = 0.1
    cold_exploration: float = 0.5
    noise: float = 0.05
    elites: int = 48
    walked: int = 4


@dataclass(frozen=True, kw_only=True)
class Draft:
    """One candidate that was not proposed before: the space's index and the genome."""

    space: int
    genome: NDArray[np.int32]

    @property
    def key(self) -> tuple[int, bytes]:
        return self.space, self.genome.tobytes()


class Drafter:
    """Proposes distinct drafts over the spaces of one task. Seeded; knows nothing of how they are measured."""

    def __init__(self, spaces: list[DecisionSpace], *, seed: int, config: DraftConfig | None = None) -> None:
        self._spaces = spaces
        self._config = config or DraftConfig()
        self._rng = np.random.default_rng(seed)
        self._proposed: set[tuple[int, bytes]] = set()
        self._measured: list[tuple[float, Draft]] = []

    @property
    def exhausted(self) -> bool:
        """Whether every candidate of every space was proposed."""
        return len(self._proposed) >= sum(space.size for space in self._spaces)

    def remember(self, draft: Draft, latency_us: float | None) -> None:
        """Never propose this candidate again; a measured one becomes a parent of later drafts."""
        self._proposed.add(draft.key)
        if latency_us is not None:
            self._measured.append((latency_us, draft))
            self._measured.sort(key=lambda pair: pair[0])
            del self._measured[self._config.elites :]

    def propose(self, count: int, scorer: Scorer, *, exploration: float, first: Sequence[Draft] = ()) -> list[Draft]:
        """Up to ``count`` new drafts, best first, the random ones last; fewer only when the spaces run dry.

        ``exploration`` is the share of random ones, 0 to 1: one at least unless it is 0. ``first`` are tried before all
        others, but fill no more than half of the batch.
        """
        drafts = self._take(list(first), count // 2)
        random_count = min((count - len(drafts)) // 2, max(1, round(count * exploration))) if exploration else 0
        drafts += self._take(self._ranked(count, scorer), count - random_count - len(drafts))
        drafts += self._take(self._random_drafts(4 * count), count - len(drafts))
        if len(drafts) < count:
            drafts += self._take(self._everything(), count - len(drafts))
        return drafts

    def _take(self, candidates: list[Draft], count: int) -> list[Draft]:
        taken: list[Draft] = []
        for draft in candidates:
            if len(taken) >= count:
                break
            if draft.key not in self._proposed:
                self._proposed.add(draft.key)
                taken.append(draft)
        return taken

    def _ranked(self, count: int, scorer: Scorer) -> list[Draft]:
        scored: list[tuple[float, Draft]] = []
        for index in range(len(self._spaces)):
            genomes, scores = self._evolve(index, scorer)
            scores = scores + self._rng.gumbel(0.0, self._config.noise, len(scores))
            order = np.argsort(-scores)[: 6 * count]
            scored += [(float(scores[i]), Draft(space=index, genome=genomes[i])) for i in order]
        scored.sort(key=lambda pair: -pair[0])
        return [draft for _, draft in scored]

    def _evolve(self, index: int, scorer: Scorer) -> tuple[Genomes, NDArray[np.float64]]:
        space, pool, rng = self._spaces[index], self._config.pool, self._rng
        genomes = space.random(pool, rng)
        parents = [draft.genome for _, draft in self._measured if draft.space == index]
        if parents:
            elite = np.stack(parents)
            children = space.mutate(elite[rng.integers(0, len(elite), pool // 2)], rng)
            beside = [space.neighbours(genome) for genome in elite[: self._config.walked]]
            genomes = np.concatenate([genomes[: pool // 2], children, space.crossover(elite, pool // 4, rng), *beside])
        scores = scorer(index, genomes)
        for _ in range(self._config.generations):
            best = np.argsort(-scores)[: pool // 8]
            elite = genomes[best]
            children = space.mutate(elite[rng.integers(0, len(elite), pool // 2)], rng)
            born = np.concatenate([children, space.crossover(elite, pool // 4, rng)])
            genomes = np.concatenate([elite, born])
            scores = np.concatenate([scores[best], scorer(index, born)])
        return genomes, scores

    def _random_drafts(self, count: int) -> list[Draft]:
        spaces = self._rng.integers(0, len(self._spaces), count)
        return [Draft(space=int(i), genome=self._spaces[i].random(1, self._rng)[0]) for i in spaces]

    def _everything(self) -> list[Draft]:
        """All candidates of the spaces that are small enough to list: how a nearly dry task is finished."""
        listed: list[Draft] = []
        for index, space in enumerate(self._spaces):
            if space.size <= 4096:
                # A space without a gene has one candidate, the empty genome.
                grid = np.indices(tuple(space.cardinalities)).reshape(len(space.genes), int(space.size)).T
                listed += [Draft(space=index, genome=row.astype(np.int32)) for row in grid]
        return listed
