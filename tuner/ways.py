"""The ways in which a network can be computed: its 3×3 convolutions directly, or some of them by Winograd's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import tvm
from tvm.target import Target

from schedules.graph.pipeline import fuse
from schedules.graph.winograd import use_winograd, winograd_shapes
from schedules.winograd import WINOGRAD, way_of
from tuner.request import Budget
from tuner.search.alternatives import Alternative
from tuner.targets import TargetSpec

# A second way needs its own trials before it can win: not worth it where there are only a few for each function.
_TRIALS_PER_FUNCTION = 8
_MIN_TIME_S = 60.0


class Ways:
    """The fused forms of one prepared network (`schedules.graph.pipeline.prepare`) on a target."""

    def __init__(self, prepared: tvm.IRModule, spec: TargetSpec) -> None:
        self._prepared = prepared
        self._fuse = partial(fuse, target=Target(spec.tvm), vector_bits=spec.vector_bits)
        self._shapes = winograd_shapes(prepared)
        self.direct = self._fuse(prepared)

    @property
    def forms(self) -> list[tvm.IRModule]:
        """What tasks are extracted from: the direct form, and one with every convolution by Winograd that can be."""
        by_winograd = [self._fuse(use_winograd(self._prepared, self._shapes))] if self._shapes else []
        return [self.direct, *by_winograd]

    def fused(self, ways: Mapping[str, str]) -> tvm.IRModule:
        """The network with these ways, by choice (the convolution's shape as text)."""
        chosen = [shape for shape in self._shapes if ways.get(str(shape)) == WINOGRAD]
        return self._fuse(use_winograd(self._prepared, chosen)) if chosen else self.direct

    def can_be_compared(self, budget: Budget) -> bool:
        """Whether a budget is large enough to search ways that no earlier job knows."""
        enough_trials = budget.trials is None or budget.trials >= _TRIALS_PER_FUNCTION * len(self.direct.functions)
        return enough_trials and (budget.time_limit_s is None or budget.time_limit_s >= _MIN_TIME_S)


def alternative_of(mod: tvm.IRModule) -> Alternative | None:
    """What a task is an alternative for, None where there is one way only."""
    found = way_of(mod)
    return None if found is None else Alternative(choice=found[0], way=found[1])
