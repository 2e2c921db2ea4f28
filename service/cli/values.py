"""How values are written on the command line: durations, sizes, shapes. And how they are shown."""

from __future__ import annotations

import re

from service.errors import Invalid

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "k": 2**10, "kib": 2**10, "m": 2**20, "mib": 2**20}
_BYTES |= {"g": 2**30, "gib": 2**30}
# The name may hold "=", the sizes are positive; none at all is a scalar.
_SHAPE = re.compile(r"(.+)=((?:[1-9]\d*(?:x[1-9]\d*)*)?)")
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")


class InvalidOption(Invalid):
    code = "invalid_option"
    hint = "See: tessera tune --help"


def parse_duration_s(text: str) -> float:
    """``90``, ``90s``, ``10m``, ``1.5h`` → seconds; raises `InvalidOption` also for zero."""
    return _scaled(text, _SECONDS, example="10m", what="duration")


def parse_bytes(text: str) -> int:
    """``2MiB``, ``512k``, ``1000000`` → bytes; raises `InvalidOption` also for zero."""
    return int(_scaled(text, _BYTES, example="2MiB", what="size"))


def parse_shapes(texts: list[str]) -> dict[str, list[int]]:
    """``["x=1x3x8x8"]`` → ``{"x": [1, 3, 8, 8]}``; a scalar is ``x=``."""
    shapes: dict[str, list[int]] = {}
    for text in texts:
        match = _SHAPE.fullmatch(text)
        if match is None:
            raise InvalidOption(f"{text!r} is no input shape.", hint="Write for example: --input-shape x=1x3x224x224")
        shapes[match[1]] = [int(size) for size in match[2].split("x")] if match[2] else []
    return shapes


def _scaled(text: str, units: dict[str, float] | dict[str, int], *, example: str, what: str) -> float:
    match = _NUMBER.fullmatch(text.strip())
    value = float(match[1]) * units[match[2].lower()] if match and match[2].lower() in units else 0.0
    if value <= 0:
        raise InvalidOption(f"{text!r} is no positive {what}.", hint=f"Write it for example as {example}.")
    return value


def show_us(value: float | None, spread: float | None = None) -> str:
    """Three significant digits with a unit: ``412 µs``, ``1.84 ms``; the spread in the same unit."""
    if value is None:
        return "–"
    scale, unit = (1e3, "ms") if value >= 1e4 else (1.0, "µs")
    around = f" ± {spread / scale:.2g}" if spread is not None else ""
    return f"{_three_digits(value / scale)}{around} {unit}"


def show_bytes(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count} B"


def show_duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
