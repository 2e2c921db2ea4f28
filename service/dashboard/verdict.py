"""What a job amounts to, in words: the answers at the top of its page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from service.dashboard.figures import NOTHING, count, duration, error, latency, ratio, significant
from service.jobs.states import FINAL_STATES, JobState
from service.schemas.jobs import JobSchema

STAGES = ("import", "partition", "extract", "tune", "build", "verify", "benchmark", "package")
# DESIGN's limit for float32: max |y − r| / max |r| over three random inputs and the samples given.
RELATIVE_LIMIT = 1e-4


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One answer: the short ``text`` and a ``note`` of one or two sentences beneath."""

    text: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """The shipped build's latency against the two others; ``estimated`` while nothing was measured end to end."""

    best_us: float | None
    best_spread_us: float | None
    untuned_us: float | None
    onnxruntime_us: float | None
    estimated: bool

    @property
    def against_untuned(self) -> float | None:
        return self.untuned_us / self.best_us if self.best_us and self.untuned_us else None

    @property
    def against_onnxruntime(self) -> float | None:
        return self.onnxruntime_us / self.best_us if self.best_us and self.onnxruntime_us else None


def speed(job: JobSchema) -> Speed:
    return Speed(
        best_us=job.best.latency_us if job.best else None,
        best_spread_us=_best_spread_us(job),
        untuned_us=job.baseline.latency_us if job.baseline else None,
        onnxruntime_us=job.baseline.onnxruntime_us if job.baseline else None,
        estimated=job.best is not None and not job.best.measured,
    )


def times_faster(factor: float | None) -> str:
    """1.84 → "1.84× faster", 0.8 → "1.25× slower", and "as fast" within half a percent."""
    if factor is None:
        return NOTHING
    if abs(factor - 1) < 0.005:
        return "as fast"
    return f"{significant(factor)}× faster" if factor > 1 else f"{significant(1 / factor)}× slower"


def how_much_faster(job: JobSchema) -> Answer:
    figures = speed(job)
    if job.outcome == "unmeasured":
        return Answer(text="Not measured", note="Built without a device: run the bundle there to time it.")
    if figures.best_us is None:
        if job.state in FINAL_STATES:
            return Answer(text=NOTHING, note="The job ended before anything was measured.")
        return Answer(text="Not known yet", note="The first estimate comes with the first trials of every task.")
    shown = latency(figures.best_us, figures.best_spread_us)
    note = f"{'Estimated' if figures.estimated else 'Measured'} {shown}"
    if figures.against_untuned is None:
        return Answer(text=latency(figures.best_us), note=note)
    note += f"; untuned {latency(figures.untuned_us)}"
    if figures.onnxruntime_us is not None:
        note += f", ONNX Runtime {latency(figures.onnxruntime_us)}"
    if job.outcome == "no_improvement":
        return Answer(text="No faster build found", note=f"{note}. The bundle holds the untuned build.")
    if figures.against_onnxruntime is not None:
        return Answer(
            text=f"{times_faster(figures.against_onnxruntime)} {_than(figures.against_onnxruntime)} ONNX Runtime",
            note=f"{note}. Against untuned: {ratio(figures.untuned_us, figures.best_us)}.",
        )
    text = f"{times_faster(figures.against_untuned)} {_than(figures.against_untuned)} untuned"
    return Answer(text=text, note=f"{note}. ONNX Runtime was not measured here.")


def is_it_right(job: JobSchema, manifest: Mapping[str, Any] | None) -> Answer:
    """``manifest`` is the bundle's, if there is one: it says on what machine the outputs were compared."""
    result = job.result
    if result is not None and result.max_rel_error is not None:
        note = (
            f"Against ONNX Runtime: max relative error {error(result.max_rel_error)}, "
            f"max absolute error {error(result.max_abs_error)}."
        )
        checked_on = ((manifest or {}).get("numerics") or {}).get("checked_on", job.target)
        if checked_on != job.target:
            note += f" Checked on {checked_on} with the same schedules; run.py in the bundle checks it on the device."
        return Answer(text="Verified", note=note)
    if job.error is not None and job.error.code == "verification_failed":
        return Answer(text="No", note="The outputs differ from ONNX Runtime; nothing was shipped.")
    if job.state in FINAL_STATES:
        return Answer(text=NOTHING, note="The job ended before it was verified.")
    return Answer(text="Checked at the end", note="Outputs are compared with ONNX Runtime before anything is shipped.")


def progress_line(job: JobSchema) -> str:
    """What the job does now, for people: "Waiting, 2 jobs before it" or "128 of 256 trials, 2 min left"."""
    if job.state == JobState.QUEUED:
        if job.waiting_for:
            return f"Waiting for {job.waiting_for}."
        before = (job.queue_position or 1) - 1
        resumes = " It resumes from its records." if job.attempts else ""
        place = f"Waiting; {before} job{'s' if before != 1 else ''} before it." if before else "Next to start."
        return place + resumes
    if job.state == JobState.CANCELLING:
        return "Cancelling: its processes are being ended."
    if job.outcome == "unmeasured":
        return "Built without measuring."
    parts = []
    done, total = job.progress.trials_done, job.progress.trials_total
    if total:
        parts.append(f"{count(done)} of {count(total)} trials")
    elif done:
        parts.append(f"{count(done)} trials")
    if job.progress.eta_s is not None:
        parts.append(f"about {duration(job.progress.eta_s)} left")
    return ", ".join(parts)


def stage_marks(job: JobSchema) -> list[tuple[str, str]]:
    """Every stage with its mark: done, now, broken or to come (empty)."""
    if job.state == JobState.SUCCEEDED:
        return [(stage, "done") for stage in STAGES]
    if job.stage not in STAGES:
        return [(stage, "") for stage in STAGES]
    here = STAGES.index(job.stage)
    mark = "broken" if job.state == JobState.FAILED else "" if job.state in FINAL_STATES else "now"
    return [(stage, "done" if index < here else mark if index == here else "") for index, stage in enumerate(STAGES)]


def _best_spread_us(job: JobSchema) -> float | None:
    if job.best is None:
        return None
    if job.outcome == "no_improvement" and job.baseline is not None:
        return job.baseline.spread_us  # the shipped build is the untuned one
    return job.best.spread_us


def _than(factor: float) -> str:
    return "as" if abs(factor - 1) < 0.005 else "than"
