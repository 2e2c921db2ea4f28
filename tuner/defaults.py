"""Default schedules of ours for what a budget leaves untuned: the design space's best candidate by the analytic prior.

TVM leaves a function without a schedule as naive loops. Here it gets what the search itself would measure first: tiled
for registers and caches, vectorized, parallel. Nothing is measured; the whole network is verified as always.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from schedules.decisions import Genomes
from tuner.search.draft import DraftConfig, Drafter
from tuner.search.features import Machine, analytic_scores
from tuner.tuning import TuningTask

# A few, best first: a draft whose replay is refused by a postprocessor makes way for the next one.
_ALTERNATIVES = 8
_CONFIG = DraftConfig(noise=1e-6)


def default_traces(task: TuningTask, *, machine: Machine, seed: int) -> list[str]:
    """Traces (TVM's JSON) of the analytically best schedules of a task, best first; empty without a design space."""
    if not task.spaces:
        return []

    def scorer(space: int, genomes: Genomes) -> NDArray[np.float64]:
        return analytic_scores(task.spaces[space], genomes, machine)

    drafts = Drafter(task.spaces, seed=seed, config=_CONFIG).propose(2 * _ALTERNATIVES, scorer, cold=False)
    spaces = [task.spaces[draft.space] for draft in drafts]
    return [space.trace_json(space.decisions(draft.genome)) for space, draft in zip(spaces, drafts, strict=True)]
