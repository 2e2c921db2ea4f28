"""How figures are written: three significant digits, units that fit, the spread beside the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

NOTHING = "–"
# A space at which no line breaks.
_GLUE = "\u00a0"
_DURATIONS = ((86400.0, "d", "h", 3600.0), (3600.0, "h", "min", 60.0), (60.0, "min", "s", 1.0))


def significant(value: float, digits: int = 3) -> str:
    """The value with that many significant digits, never in scientific notation: 1234.5 → 1230, 0.012345 → 0.0123."""
    if not math.isfinite(value):
        return NOTHING
    if value == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    # 9.996 rounds up to 10.0: one digit fewer behind the point keeps three significant ones.
    decimals = digits - 1 - math.floor(math.log10(abs(rounded)))
    return f"{rounded:.{max(decimals, 0)}f}"


def latency(value_us: float | None, spread_us: float | None = None) -> str:
    """A latency with its unit and, where known, its spread in the same unit: ``412 ± 6 µs``."""
    if value_us is None:
        return NOTHING
    scale, unit = latency_unit(value_us)
    shown = significant(value_us / scale)
    if spread_us is None:
        return f"{shown} {unit}"
    decimals = len(shown.partition(".")[2])
    return f"{shown} ± {spread_us / scale:.{decimals}f} {unit}"


def latency_unit(value_us: float) -> tuple[float, str]:
    """Microseconds per unit, and the unit that a latency of this size is written in."""
    if value_us >= 1e6:
        return 1e6, "s"
    if value_us >= 1e4:
        return 1e3, "ms"
    return 1.0, "µs"


def microseconds(value_us: float | None) -> str:
    """A figure for a column whose header carries the unit µs."""
    return NOTHING if value_us is None else significant(value_us)


def ratio(slower: float | None, faster: float | None) -> str:
    """How many times ``faster`` fits into ``slower``: 1.84×."""
    if not slower or not faster:
        return NOTHING
    return f"{significant(slower / faster)}×"


def percent(fraction: float | None) -> str:
    return (
        NOTHING if fraction is None else f"{100 * fraction:.0f} %" if fraction >= 0.0995 else f"{100 * fraction:.1f} %"
    )


def count(value: float | None) -> str:
    """An integer with thin spaces between groups of three: 10 000."""
    return NOTHING if value is None else f"{int(value):,}".replace(",", "\u202f")


def scaled(value: float | None, unit: str) -> str:
    """A quantity with an SI prefix: 3.4e8, "FLOP" → 340 MFLOP."""
    if value is None:
        return NOTHING
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{significant(value / scale)} {prefix}{unit}"
    return f"{significant(value)} {unit}"


def size(value_bytes: float | None) -> str:
    """A size in binary units: 2.5 MiB."""
    if value_bytes is None:
        return NOTHING
    for scale, unit in ((1024**3, "GiB"), (1024**2, "MiB"), (1024, "KiB")):
        if value_bytes >= scale:
            return f"{significant(value_bytes / scale)} {unit}"
    return f"{int(value_bytes)} B"


def duration(value_s: float | None) -> str:
    """A duration in its two largest units, in one piece: 95 → 1 min 35 s."""
    if value_s is None:
        return NOTHING
    whole = round(value_s)
    if whole < 60:
        return f"{significant(value_s, 2)}{_GLUE}s" if 0 < value_s < 1 else f"{whole}{_GLUE}s"
    for scale, unit, smaller, smaller_scale in _DURATIONS:
        if whole >= scale:
            rest = int(whole % scale // smaller_scale)
            return _GLUE.join([str(int(whole // scale)), unit, *([str(rest), smaller] if rest else [])])
    raise AssertionError("durations of a minute and more were handled above")


def error(value: float | None) -> str:
    """A numerical error: 3.1e-6, and 0 for exact results."""
    if value is None:
        return NOTHING
    if value == 0:
        return "0 (exact)"
    digits, _, exponent = f"{value:.1e}".partition("e")
    return f"{digits.removesuffix('.0')}e{int(exponent)}"


def moment(value: datetime | str | None) -> datetime | None:
    """A timestamp of the API (text or datetime, UTC when it names no zone)."""
    if value is None or value == "":
        return None
    when = datetime.fromisoformat(value) if isinstance(value, str) else value
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def exact(value: datetime | str | None) -> str:
    when = moment(value)
    return NOTHING if when is None else f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(value: datetime | str | None, now: datetime | None = None) -> str:
    """How long ago: "just now", "5 min ago", "3 d ago"."""
    when = moment(value)
    if when is None:
        return NOTHING
    elapsed_s = ((now or datetime.now(UTC)) - when).total_seconds()
    if elapsed_s < 45:
        return "just now"
    for scale, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if elapsed_s >= scale:
            return f"{int(elapsed_s // scale)} {unit} ago"
    return "1 min ago"


def short(identifier: str) -> str:
    """An id as a person can tell it apart: a hash's first eight digits, a time-ordered UUID's last eight."""
    return identifier[-8:] if len(identifier) == 36 and identifier.count("-") == 4 else identifier[:8]


def _unbroken(write: Callable[..., str]) -> Callable[..., str]:
    """The same figure in one piece: no line of a page ends between a number and its unit."""

    def written(*values: Any) -> str:
        return write(*values).replace(" ", _GLUE)

    return written


FILTERS = {
    "significant": significant,
    "latency": _unbroken(latency),
    "ratio": ratio,
    "microseconds": microseconds,
    "percent": _unbroken(percent),
    "count": count,
    "scaled": _unbroken(scaled),
    "size": _unbroken(size),
    "duration": duration,
    "error": error,
    "exact": exact,
    "ago": _unbroken(ago),
    "short": short,
}
