"""The form that starts a job: its values, its input shapes, and the request that they make."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import ImmutableMultiDict

from service.errors import Invalid
from service.schemas.jobs import MAX_TIME_LIMIT_S, MAX_TRIALS, JobCreate, Measure
from service.schemas.models import ModelSchema
from tuner.request import DEFAULT_TRIALS

_SHAPE_PREFIX = "shape:"
# Of these an empty value is none; a number that was deleted is wrong.
_CHOSEN = ("target", "budget")
_DEFAULT_MINUTES = "10"
_MAX_MINUTES = MAX_TIME_LIMIT_S // 60
_MAX_SEED = 2**31 - 1
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*([a-z]*)")
_UNITS = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "": 2**20}
# What a named dimension usually is; only an example inside the empty field, never sent by itself.
_EXAMPLE_SIZE = "224"


@dataclass(frozen=True, kw_only=True)
class StartForm:
    """The values as the person wrote them, so that they can be shown again beside an error. ``also`` are further
    targets, with a job each; ``budget`` is trials, time or both."""

    target: str = "host"
    also: tuple[str, ...] = ()
    budget: str = "trials"
    trials: str = str(DEFAULT_TRIALS)
    minutes: str = _DEFAULT_MINUTES
    seed: str = "0"
    memory: str = ""
    shapes: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: ImmutableMultiDict[str, Any]) -> StartForm:
        """From submitted fields or query parameters; anything that is missing keeps its default."""
        given = {name: value.strip() for name, value in fields.items() if isinstance(value, str)}
        names = ("target", "budget", "trials", "minutes", "seed", "memory")
        known = {name: given[name] for name in names if given.get(name) or (name in given and name not in _CHOSEN)}
        shapes = {
            name.removeprefix(_SHAPE_PREFIX): text for name, text in given.items() if name.startswith(_SHAPE_PREFIX)
        }
        also = tuple(name for name in fields.getlist("also") if isinstance(name, str))
        return cls(**known, also=also, shapes=shapes)

    @property
    def targets(self) -> list[str]:
        """Every target once, the first one first."""
        return list(dict.fromkeys([self.target, *self.also]))

    def input_shapes(self) -> dict[str, list[int]]:
        """The shapes that were filled in; raises `Invalid` (``shape_mismatch``) for one that is not a shape."""
        return {name: parse_shape(name, text) for name, text in self.shapes.items() if text}

    def limits(self) -> tuple[int | None, float | None]:
        """The trials and the seconds of the budget; raises `Invalid` for a number that is none or too large."""
        trials = None if self.budget == "time" else _whole(self.trials, "Trials", 1, MAX_TRIALS)
        return trials, None if self.budget == "trials" else 60 * _minutes(self.minutes)

    def request(self, model_id: str, *, target: str, measure: Measure = Measure.DEVICE) -> JobCreate:
        """The job that the form asks for on one of its targets; raises `Invalid` naming the field that is wrong."""
        trials, time_limit_s = self.limits()
        try:
            return JobCreate(
                model_id=model_id,
                target=target,
                trials=trials,
                time_limit_s=time_limit_s,
                seed=_whole(self.seed, "Seed", 0, _MAX_SEED),
                memory_limit_bytes=parse_size(self.memory) if self.memory else None,
                input_shapes=self.input_shapes(),
                measure=measure,
            )
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise Invalid(f"{name.replace('_', ' ').capitalize()}: {first['msg']}.") from None


@dataclass(frozen=True, kw_only=True)
class ShapeField:
    """One input's shape: how the file declares it, what was filled in, and an example."""

    name: str
    declared: str
    value: str
    example: str


def shape_fields(model: ModelSchema, form: StartForm) -> list[ShapeField]:
    """A field for every input whose shape the file leaves open, and for every one that was filled in."""
    fields = []
    for tensor in model.inputs:
        sizes = tensor.shape
        is_open = sizes is None or any(not isinstance(size, int) for size in sizes)
        if not is_open and tensor.name not in form.shapes:
            continue
        declared = "×".join("?" if size is None else str(size) for size in sizes or ()) or "shape not in the file"
        fields.append(
            ShapeField(
                name=tensor.name,
                declared=f"{tensor.dtype} {declared}",
                value=form.shapes.get(tensor.name, ""),
                example=_example(sizes),
            )
        )
    return fields


def parse_shape(name: str, text: str) -> list[int]:
    """``"1x3x224x224"`` → [1, 3, 224, 224]; ``×``, commas and spaces separate as well."""
    parts = [part for part in re.split(r"[x×,\s]+", text.strip().lower()) if part]
    if not parts or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise Invalid(
            f"{text!r} is not a shape for input {name!r}.",
            code="shape_mismatch",
            hint="Write whole sizes above zero with x between them, for example 1x3x224x224.",
        )
    return [int(part) for part in parts]


def _example(sizes: list[int | str | None] | None) -> str:
    if not sizes:
        return "1x3x224x224"
    return "x".join(
        str(size) if isinstance(size, int) else "1" if position == 0 else _EXAMPLE_SIZE
        for position, size in enumerate(sizes)
    )


def parse_size(text: str) -> int:
    """``"1.5 MiB"``, ``"512KiB"`` → bytes, at least one; MiB without a unit."""
    match = _SIZE.fullmatch(text.strip().lower())
    size_bytes = round(float(match[1]) * _UNITS[match[2]]) if match and match[2] in _UNITS else 0
    if not 0 < size_bytes < 2**62:
        raise Invalid(
            f"Memory limit: {text!r} is not a size.",
            hint="Write for example 1.5 MiB or 512 KiB; left empty there is no limit.",
        )
    return size_bytes


def _whole(text: str, what: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 12 or not least <= int(text) <= most:
        hint = f"Correct {what.lower()}."
        raise Invalid(f"{what}: {text!r} is not a whole number from {least} to {most}.", hint=hint)
    return int(text)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes <= _MAX_MINUTES:
        raise Invalid(
            f"Minutes: {text!r} is not a time for a search.",
            hint=f"Write minutes above zero, at most {_MAX_MINUTES} (30 days), for example 10 or 2.5.",
        )
    return minutes
