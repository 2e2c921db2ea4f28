"""The ways in which a network can be computed: convolutions directly or by Winograd's filtering, chains of operators
one after the other or together by sliding windows."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import tvm
from tvm import relax
from tvm.target import Target

from schedules.graph.neighbourhood import rewrite_around
from schedules.graph.pipeline import fuse
from schedules.graph.rewrite import Rule, rewrite_main
from schedules.graph.windows import Windows, windows_rule
from schedules.graph.winograd import winograd_convolutions, winograd_rule
from schedules.memory.storages import aligned
from schedules.windows.columns import least_tiles
from schedules.windows.describe import described
from schedules.windows.find import FoundChain, find_chains
from schedules.windows.lower import computed_macs, ring_sizes
from schedules.windows.rows import RowPlan, plan_rows
from schedules.windows.stages import Chain
from schedules.winograd import WINOGRAD, ConvolutionShape
from tuner.request import Budget
from tuner.search.alternatives import USUAL_WAY, Alternative, Totals, Use
from tuner.search.alternatives import Ways as ChosenWays
from tuner.targets import TargetSpec

# A second way needs its own trials before it can win: not worth it where there are only a few for each function.
_TRIALS_PER_FUNCTION = 8
_SECONDS_PER_FUNCTION = 0.5
_MIN_TIME_S = 60.0
_ROWS_PER_STEP = (1, 4)
_TILES = (1, 2, 3, 4)
# Columns at the seams of tiles are computed again: what multiplies more than this often is for nobody.
_MAX_MAC_RATIO = 1.5
# A chain whose tensors stay in the cache may be slower alone by as much and faster in its network.
_NEAR = 1.5
_USUAL_L2_BYTES = 1024 * 1024

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, kw_only=True)
class _Part:
    """The stages ``[start, end)`` of a chain, computed by a plan, with the mean behind the last one if it averages."""

    start: int
    end: int
    plan: RowPlan
    averages: bool = False

    def of(self, chain: FoundChain) -> FoundChain:
        return chain.part(self.start, self.end, averages=self.averages)

    def ring_bytes(self, chain: FoundChain) -> int:
        return sum(map(aligned, ring_sizes(self.of(chain).chain, self.plan)))


def _held_bytes(found: FoundChain, parts: Sequence[_Part]) -> int:
    """The most that parts hold at a time, what the rest of the network holds meanwhile not counted."""
    chains = [(part.of(found).chain, part) for part in parts]
    return max(
        (0 if chain.is_planar else 4 * chain.source.elements) + part.ring_bytes(found) + 4 * chain.result.elements
        for chain, part in chains
    )


def _computed_macs(found: FoundChain, parts: Sequence[_Part]) -> int:
    return sum(computed_macs(part.of(found).chain, part.plan) for part in parts)


@dataclass(kw_only=True, eq=False)
class _Choice:
    """Equal parts of a network: convolutions that Winograd can compute; chains, with the parts that each of their ways
    by windows computes together."""

    convolutions: dict[relax.Var, ConvolutionShape] = field(default_factory=dict)
    chains: list[FoundChain] = field(default_factory=list)
    plans: dict[str, tuple[_Part, ...]] = field(default_factory=dict)

    @property
    def variables(self) -> list[relax.Var]:
        """What its convolutions and chains bind."""
        return [*self.convolutions, *(variable for chain in self.chains for variable in chain.variables)]

    @property
    def ways(self) -> list[str]:
        """All but the usual one."""
        return [*([WINOGRAD] if self.convolutions else []), *self.plans]


class Ways:
    """The fused forms of one prepared network (`schedules.graph.pipeline.prepare`) on a target.

    Chains are choices where windows may make them faster: where a tensor between their operators does not fit a core's
    second-level cache. For memory limits all of them are, or those that are ``needed``, by their names; these have more
    ways for little memory. Without ``windows`` none is. On a GPU there is the usual way only.
    """

    def __init__(
        self,
        prepared: tvm.IRModule,
        spec: TargetSpec,
        *,
        every_chain: bool = False,
        needed: Collection[str] = (),
        windows: bool = True,
    ) -> None:
        self._prepared = prepared
        self._fuse = partial(fuse, target=Target(spec.tvm), vector_bits=spec.vector_bits)
        self._choices: dict[str, _Choice] = {}
        if not spec.is_gpu:
            self._choices = _choices(
                prepared,
                find_chains(prepared) if windows else [],
                threads=spec.threads,
                least_bytes=spec.cache_bytes.get("l2", _USUAL_L2_BYTES),
                needed=None if every_chain else needed,
            )
        self.direct = self._fuse(prepared)

    @property
    def choices(self) -> dict[str, list[str]]:
        """The ways of every choice, the usual one first."""
        return {name: [USUAL_WAY, *choice.ways] for name, choice in self._choices.items()}

    @property
    def smallest_plans(self) -> dict[str, str]:
        """The plan that holds least of every choice that has plans."""
        return {
            name: min(choice.plans, key=lambda way: _held_bytes(choice.chains[0], choice.plans[way]))
            for name, choice in self._choices.items()
            if choice.plans
        }

    def frugal(self, choice: str) -> list[str]:
        """The ways of a choice in one strip: each holds less than the one before it and multiplies more."""
        found = self._choices[choice]
        ways = [way for way, parts in found.plans.items() if all(_is_frugal(part.plan) for part in parts)]
        return sorted(ways, key=lambda way: -_held_bytes(found.chains[0], found.plans[way]))

    def ring_bytes(self, choice: str, way: str) -> int | None:
        """The rings of a chain that a way computes as one, without what is behind it; None for all other ways."""
        found = self._choices[choice]
        parts = found.plans.get(way, ())
        return parts[0].ring_bytes(found.chains[0]) if len(parts) == 1 and not parts[0].averages else None

    def fused(self, ways: ChosenWays) -> tvm.IRModule:
        """The network with these ways, the usual one for every other choice."""
        rules = self._rules(ways)
        return self._fuse(rewrite_main(self._prepared, *rules)) if rules else self.direct

    def around(self, choice: str, way: str) -> tvm.IRModule:
        """What a choice makes of its neighbourhood: the part of the network that is fused otherwise when it changes."""
        changed = self._choices[choice].variables
        return self._fuse(rewrite_around(self._prepared, changed, *self._rules({choice: way})))

    def windows(self, ways: ChosenWays) -> list[dict[str, object]]:
        """The chains that are computed by windows with these ways, in plain values: ``count`` equal ones each, in
        ``parts`` (`schedules.windows.describe`)."""
        return [
            {
                "chain": name,
                "way": way,
                "count": len(choice.chains),
                "parts": [described(part.of(choice.chains[0]).chain, part.plan) for part in choice.plans[way]],
            }
            for name, choice in self._choices.items()
            if (way := ways.get(name, USUAL_WAY)) in choice.plans
        ]

    def _rules(self, ways: ChosenWays) -> list[Rule]:
        convolutions: dict[relax.Var, ConvolutionShape] = {}
        windows: list[Windows] = []
        for name, choice in self._choices.items():
            way = ways.get(name, USUAL_WAY)
            if way in choice.plans:
                label = window_label(name, way)
                windows += [
                    Windows(chain=part.of(chain), plan=part.plan, label=label)
                    for chain in choice.chains
                    for part in choice.plans[way]
                ]
            elif way == WINOGRAD:
                convolutions |= choice.convolutions
        return [windows_rule(windows), winograd_rule(convolutions)] if convolutions or windows else []

    def uses(
        self, calls: Mapping[Key, int], around: Mapping[str, Mapping[str, Mapping[Key, int]]]
    ) -> dict[Key, list[Use]]:
        """Which way needs which tasks how often, from the calls of each task in the usual form (`direct`), and in the
        neighbourhood of each choice, by way (`around`).

        What a choice's other ways do without is its usual way.
        """
        everywhere, uses = Counter(calls), dict[Key, list[Use]]()
        for name, by_way in around.items():
            usual = by_way[USUAL_WAY]
            changes = {
                way: {key: count for key in {*usual, *called} if (count := called.get(key, 0) - usual.get(key, 0))}
                for way, called in by_way.items()
            }
            replaced = Counter[Key]()
            for change in changes.values():
                replaced |= Counter({key: -count for key, count in change.items()})
            everywhere -= replaced
            for way, change in changes.items():
                for key in {*replaced, *change}:
                    count = replaced[key] + change.get(key, 0)
                    if count > 0:
                        alternative = Alternative(choice=name, way=way)
                        uses.setdefault(key, []).append(Use(count=count, alternative=alternative))
        for key, count in everywhere.items():
            uses.setdefault(key, []).insert(0, Use(count=count))
        return uses

    def with_windows(self, ways: ChosenWays, totals: Totals) -> dict[str, str]:
        """These ways, with windows instead wherever the fastest of them comes near, by the latencies of the ways."""
        near = dict(ways)
        for name, choice in self._choices.items():
            measured = totals.get(name, {})
            by_windows = [way for way in choice.plans if way in measured]
            if by_windows and ways[name] in measured:
                fastest = min(by_windows, key=lambda way: measured[way])
                if measured[fastest] < _NEAR * measured[ways[name]]:
                    near[name] = fastest
        return near

    def can_be_compared(self, budget: Budget) -> bool:
        """Whether a budget is large enough to search ways that no earlier job knows."""
        functions = len(self.direct.functions) + sum(len(choice.ways) for choice in self._choices.values())
        enough_trials = budget.trials is None or budget.trials >= _TRIALS_PER_FUNCTION * functions
        enough_time_s = max(_MIN_TIME_S, _SECONDS_PER_FUNCTION * functions)
        return enough_trials and (budget.time_limit_s is None or budget.time_limit_s >= enough_time_s)


def _choices(
    prepared: tvm.IRModule,
    chains: Sequence[FoundChain],
    *,
    threads: int,
    least_bytes: int,
    needed: Collection[str] | None,
) -> dict[str, _Choice]:
    """Equal chains with their convolutions, then what convolutions are left, by their shape.

    Of chains only those with a tensor of more than ``least_bytes`` between their operators, and those ``needed``: all
    of them are where it is None.
    """
    convolutions = winograd_convolutions(prepared)
    choices: dict[str, _Choice] = {}
    names: dict[tuple[Chain, bool], str] = {}
    for found in chains:
        chain, kind = found.chain, (found.chain, found.mean is not None)
        if kind not in names:
            names[kind] = _free(f"{chain.source}→{chain.output}, {len(found.stages)} operators", names.values())
        largest_bytes = max(4 * stage.output.elements for stage in chain.stages[:-1])
        is_needed = needed is None or names[kind] in needed
        if largest_bytes <= least_bytes and not is_needed:
            continue
        if names[kind] not in choices:
            choices[names[kind]] = _Choice(plans=_plans(found, threads=threads, is_needed=is_needed))
        choice = choices[names[kind]]
        choice.chains.append(found)
        choice.convolutions |= {each: convolutions.pop(each) for each in found.variables if each in convolutions}
    for variable, shape in convolutions.items():
        choices.setdefault(str(shape), _Choice()).convolutions[variable] = shape
    return choices


def _plans(found: FoundChain, *, threads: int, is_needed: bool) -> dict[str, tuple[_Part, ...]]:
    """Parts by name of the way: the whole chain with a strip for each thread and few or more rows a step; the same in
    blocks, the small tensors between which are kept; and the whole chain in one strip, with the mean behind it, for
    little memory. Where a memory limit needs it, that in blocks and in tiles too, as far as it trades multiplications
    for memory."""
    whole, blocks = [0, len(found.stages)], _cuts(found)
    forms = [whole] if blocks == whole else [whole, blocks]
    wanted = [_parts(found, cuts, strips=threads, rows_per_step=step) for cuts in forms for step in _ROWS_PER_STEP]
    if is_needed:
        wanted += _frugal(found, [_parts(found, cuts, tiles=tiles) for tiles in _TILES for cuts in forms])
    else:
        wanted.append(_parts(found, whole))
    plans: dict[str, tuple[_Part, ...]] = {}
    for parts in wanted:
        if parts not in plans.values():
            plan = parts[0].plan
            name = f"windows {plan.strips}×{plan.rows_per_step}"
            name += f" in {len(parts)}" if len(parts) > 1 else ""
            name += f", {plan.tiles} tiles" if plan.tiles > 1 else ""
            plans[f"{name} with mean" if parts[-1].averages else name] = parts
    return plans


def _parts(
    found: FoundChain, cuts: Sequence[int], *, strips: int = 1, rows_per_step: int = 1, tiles: int = 1
) -> tuple[_Part, ...]:
    """The parts between the cuts. In one strip and tile the last one takes the mean behind it."""
    parts = []
    for start, end in itertools.pairwise(cuts):
        chain = found.part(start, end).chain
        plan = plan_rows(
            [stage.down for stage in chain.stages],
            output_rows=chain.output.rows,
            rows_per_step=rows_per_step,
            strips=strips,
            tiles=least_tiles(chain.output.columns, tiles),
        )
        averages = _is_frugal(plan) and plan.tiles == 1 and found.mean is not None and end == len(found.stages)
        parts.append(_Part(start=start, end=end, plan=plan, averages=averages))
    return tuple(parts)


def _is_frugal(plan: RowPlan) -> bool:
    return plan.strips == plan.rows_per_step == 1


def _frugal(found: FoundChain, every: Sequence[tuple[_Part, ...]]) -> list[tuple[_Part, ...]]:
    """Those that hold less than any other with as few multiplications."""
    most_macs = _MAX_MAC_RATIO * min(_computed_macs(found, parts) for parts in every)
    kept: list[tuple[_Part, ...]] = []
    for parts in sorted(every, key=lambda each: (_computed_macs(found, each), _held_bytes(found, each), len(each))):
        is_less = not kept or _held_bytes(found, parts) < _held_bytes(found, kept[-1])
        if is_less and _computed_macs(found, parts) <= most_macs:
            kept.append(parts)
    return kept


def _cuts(found: FoundChain) -> list[int]:
    """Where to cut a chain into blocks of two operators and more: behind tensors smaller than their neighbours."""
    sizes = [each.stage.output.elements for each in found.stages]
    cuts = [0]
    for index in range(1, len(sizes) - 2):
        is_small = sizes[index] < sizes[index - 1] and sizes[index] < sizes[index + 1]
        if is_small and index + 1 - cuts[-1] >= 2:
            cuts.append(index + 1)
    return [*cuts, len(sizes)]


def window_label(choice: str, way: str) -> str:
    return f"{choice}: {way}"


def _free(name: str, taken: Collection[str]) -> str:
    number = 1 + sum(each == name or each.startswith(f"{name} #") for each in taken)
    return name if number == 1 else f"{name} #{number}"
