"""The form that starts a job: its values, its input shapes, and the request that they make."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.datastructures import ImmutableMultiDict

from service.api.schemas import JobCreate, Measure, ModelSchema
from service.errors import Invalid
from tuner.request import DEFAULT_TRIALS

Number = TypeVar("Number", int, float)
_SHAPE_PREFIX = "shape:"
_DEFAULT_MINUTES = "10"
_MIB = 1024**2
# What a named dimension usually is; only an example inside the empty field, never sent by itself.
_EXAMPLE_SIZE = "224"


@dataclass(frozen=True, kw_only=True)
class StartForm:
    """The values as the person wrote them, so that they can be shown again beside an error. ``also`` are further
    targets, with a job each."""

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
        known = {name: given[name] for name in names if given.get(name)}
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

    def request(self, model_id: str, *, target: str, measure: Measure = Measure.DEVICE) -> JobCreate:
        """The job that the form asks for on one of its targets; raises `Invalid` naming the field that is wrong."""
        by_time = self.budget == "time"
        try:
            return JobCreate(
                model_id=model_id,
                target=target,
                trials=None if by_time else _number(self.trials, "Trials", int),
                time_limit_s=_number(self.minutes, "Minutes", float) * 60 if by_time else None,
                seed=_number(self.seed, "Seed", int),
                memory_limit_bytes=round(_number(self.memory, "Memory limit", float) * _MIB) if self.memory else None,
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


def _number(text: str, what: str, kind: type[Number]) -> Number:
    try:
        return kind(text)
    except ValueError:
        raise Invalid(f"{what}: {text!r} is not a number.", hint="Correct the named field.") from None
