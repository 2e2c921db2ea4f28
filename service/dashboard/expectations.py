"""What a job can be expected to take, said beside the form that starts it: how long its budget lasts, and between which
bounds a memory limit makes sense."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.dashboard.figures import count, duration, size
from service.dashboard.start_form import StartForm
from service.errors import Invalid
from service.queries.jobs import EarlierLimits

# What functions allocate for themselves changes a little from job to job with their schedules.
_ROOM = 1.05
# Less than a tenth between the bounds is nothing to choose from.
_LEAST_SPAN = 1.1


@dataclass(frozen=True, kw_only=True)
class MemoryRange:
    """Limits that a job can be expected to keep and that ask for anything, in bytes; ``note`` says where they come
    from."""

    least_bytes: int
    usual_bytes: int
    note: str


def memory_range(report: Mapping[str, Any] | None, earlier: EarlierLimits) -> MemoryRange | str:
    """The range of a checked model on its target, or in words why there is none. What earlier jobs found out counts
    more than the preflight's figure."""
    if report is None:
        return "The check finds out which limits are possible."
    tensors_bytes, usual_bytes = report.get("least_memory_bytes"), report.get("usual_memory_bytes")
    if not tensors_bytes or not usual_bytes:
        return "Which limits are possible is not known: the shapes of some tensors are not."
    least_bytes = max(round(_ROOM * tensors_bytes), report.get("safe_memory_limit_bytes") or 0)
    note = f"Lower limits, down to {size(tensors_bytes)}, may fail after the search."
    if earlier.needed_bytes is not None and _ROOM * earlier.needed_bytes > least_bytes:
        least_bytes = round(_ROOM * earlier.needed_bytes)
        note = f"An earlier job could not do with less than {size(earlier.needed_bytes)}."
    if earlier.kept_bytes is not None and earlier.kept_bytes <= least_bytes:
        least_bytes, note = earlier.kept_bytes, f"An earlier job kept within {size(earlier.kept_bytes)}."
    if tensors_bytes >= usual_bytes:
        return f"Sliding windows save nothing here: a run takes about {size(usual_bytes)}, and a job refuses less."
    if _LEAST_SPAN * least_bytes > usual_bytes:
        return (
            f"There is little to save here: a run takes about {size(usual_bytes)}, and a job is likely to refuse less "
            f"than {size(min(least_bytes, usual_bytes))}. {note}"
        )
    return MemoryRange(least_bytes=least_bytes, usual_bytes=usual_bytes, note=note)


def budget_note(form: StartForm, seconds_per_trial: float | None) -> str:
    """How long the chosen trials take, or how many the chosen time is enough for; empty where that is not known."""
    if not seconds_per_trial:
        return ""
    try:
        trials, time_limit_s = form.limits()
    except Invalid:
        return ""
    if trials is None:
        assert time_limit_s is not None
        return f"{duration(time_limit_s)}: about {count(max(1, round(time_limit_s / seconds_per_trial)))} trials."
    expected_s = trials * seconds_per_trial
    note = f"{count(trials)} trial{'' if trials == 1 else 's'}: about {duration(max(1, expected_s))}."
    if time_limit_s is not None:
        note += f" The {'trials end' if expected_s <= time_limit_s else 'time ends'} first."
    return note
