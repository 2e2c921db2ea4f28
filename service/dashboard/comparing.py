"""Jobs side by side: which one is faster, what each task takes in them, and how they got there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from service.dashboard.convergence import Step
from service.dashboard.figures import latency, latency_unit, significant
from service.dashboard.verdict import Answer, Speed, speed
from service.schemas.jobs import JobSchema
from service.schemas.tasks import TaskSchema

LETTERS = "ABCD"
"""What jobs are called beside each other, in figures and curves."""
# In CSS pixels at full size: the plot, and the room for ticks and titles around it.
_WIDTH, _HEIGHT, _LEFT, _TOP, _RIGHT, _BOTTOM = 900, 260, 64, 16, 40, 44
_LEAST_BETWEEN_NAMES = 14.0


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One of the jobs, under its letter."""

    letter: str
    job: JobSchema
    tasks: Sequence[TaskSchema]
    steps: Sequence[Step]
    peak_bytes: int | None
    bundle_bytes: int | None

    @property
    def speed(self) -> Speed:
        return speed(self.job)


@dataclass(frozen=True, kw_only=True)
class TaskRow:
    """What all calls of a task take in each of the jobs (µs); None where a job has no such task, or did not measure
    it."""

    name: str
    calls_us: tuple[float | None, ...]

    @property
    def fastest(self) -> int | None:
        """The position of the fastest; None where there is nothing to compare, or all are the same."""
        known = [us for us in self.calls_us if us is not None]
        if len(known) < 2 or max(known) <= 1.005 * min(known):
            return None
        return self.calls_us.index(min(known))


def which_one(compared: Sequence[Compared]) -> Answer:
    """The answer at the top: the fastest, by how much, and what is to be thought of before that is believed."""
    known = sorted(
        ((each.speed.best_us, each) for each in compared if each.speed.best_us is not None), key=lambda pair: pair[0]
    )
    if len(known) < 2:
        return Answer(text="Not known yet", note="At least two of the jobs need a latency.")
    (best_us, best), (next_us, second) = known[:2]
    spread_us = (best.speed.best_spread_us or 0.0) + (second.speed.best_spread_us or 0.0)
    if next_us - best_us <= spread_us:
        text = f"{best.letter} and {second.letter} are alike"
        note = f"{latency(best_us)} and {latency(next_us)}: no more than the spread of both timings."
    else:
        text = f"{best.letter} is {significant(next_us / best_us)}× as fast as {second.letter}"
        note = f"{latency(best_us, best.speed.best_spread_us)} against {latency(next_us, second.speed.best_spread_us)}."
    if len({each.job.target for each in compared}) > 1:
        note += " They are for different targets."
    if len({each.job.model_id for each in compared}) > 1:
        note += " Not all jobs are of the same model."
    if any(each.speed.estimated for _, each in known):
        note += " Estimates are sums over tasks, not yet measured end to end."
    return Answer(text=text, note=note)


def task_rows(compared: Sequence[Compared]) -> list[TaskRow]:
    """The tasks that any of the networks uses, the one that takes longest anywhere first."""
    rows: dict[str, tuple[str, list[float | None]]] = {}
    for position, each in enumerate(compared):
        for task in each.tasks:
            if task.used and task.best_us is not None:
                row = rows.setdefault(task.workload, (task.name, [None] * len(compared)))
                row[1][position] = task.weight * task.best_us
    found = [TaskRow(name=name, calls_us=tuple(calls_us)) for name, calls_us in rows.values()]
    return sorted(found, key=lambda row: -max(us for us in row.calls_us if us is not None))


def curves(compared: Sequence[Compared]) -> Markup:
    """The SVG of every job's estimate of its network over its trials, on a logarithmic scale; empty markup where no job
    has one."""
    drawn = [each for each in compared if each.steps]
    if not drawn:
        return Markup("")
    every = [step.estimated_us for each in drawn for step in each.steps]
    low, high = math.log10(0.9 * min(every)), math.log10(1.03 * max(every))
    trials = max(1, *(max(each.job.progress.trials_done, each.steps[-1].number) for each in drawn))

    def x(number: float) -> float:
        return round(_LEFT + _WIDTH * number / trials, 1)

    def y(value_us: float) -> float:
        return round(_TOP + _HEIGHT * (high - math.log10(value_us)) / (high - low), 1)

    scale, unit = latency_unit(max(every))
    base, end = _TOP + _HEIGHT, _LEFT + _WIDTH
    parts = []
    for tick in _log_ticks(10**low / scale, 10**high / scale):
        height = y(tick * scale)
        parts.append(f'<path class="grid" d="M{_LEFT} {height}H{end}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4:g}" text-anchor="end">{tick:g}</text>')
    for part in range(5):
        number = round(trials * part / 4)
        parts.append(f'<text x="{x(number)}" y="{base + 16}" text-anchor="middle">{number}</text>')
    parts.append(f'<path class="frame" d="M{_LEFT} {_TOP}V{base}H{end}"/>')
    lowest_first = sorted(drawn, key=lambda each: (y(each.steps[-1].estimated_us), each.letter), reverse=True)
    place = base + _LEAST_BETWEEN_NAMES
    for each in lowest_first:
        first, *others = each.steps
        path = f"M{x(first.number)} {y(first.estimated_us)}"
        path += "".join(f"H{x(step.number)}V{y(step.estimated_us)}" for step in others)
        last, height = x(max(each.job.progress.trials_done, each.steps[-1].number)), y(each.steps[-1].estimated_us)
        parts.append(f'<path class="curve curve-{each.letter.lower()}" d="{path}H{last}"/>')
        # The letter stands beside the plot, where no other curve runs through it, and above those that end lower.
        if last < end:
            parts.append(f'<path class="ended" d="M{last} {height}H{end}"/>')
        place = min(height + 4, place - _LEAST_BETWEEN_NAMES)
        parts.append(f'<text class="axis" x="{end + 6}" y="{place:g}">{each.letter}</text>')
    middle = _TOP + _HEIGHT / 2
    parts.append(
        f'<text class="axis" x="{_LEFT + _WIDTH / 2:g}" y="{base + 36}" text-anchor="middle">Trials</text>'
        f'<text class="axis" x="12" y="{middle:g}" text-anchor="middle" transform="rotate(-90 12 {middle:g})">'
        f"Network, estimated ({unit})</text>"
    )
    title = escape("Estimated latency over trials: " + ", ".join(f"{e.letter} {e.job.model_name}" for e in drawn))
    width, height = _LEFT + _WIDTH + _RIGHT, base + _BOTTOM
    return Markup(
        f'<svg role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}" aria-label="{title}">'
        f"{''.join(parts)}</svg>"
    )


def _log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten within an interval; of a short one, round numbers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5) if low <= digit * 10.0**power <= high]
    if len(ticks) >= 2:
        return ticks
    step = 10.0 ** math.floor(math.log10(high - low))
    return [round(step * index, 10) for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
