"""The outcomes of many cases, counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.cases import KINDS
from tests.fuzz.gate_process import Kind, Outcome

_MARKS = ("<!-- outcomes -->", "<!-- end of outcomes -->")


@dataclass(frozen=True, kw_only=True)
class Result:
    """A case without its content, and its outcome."""

    number: int
    kind: str
    origin: str
    outcome: Outcome


def share_imported(results: Iterable[Result]) -> float:
    """Of all cases, those that were imported and lowered."""
    kinds = [result.outcome.kind for result in results]
    return kinds.count(Kind.ACCEPTED) / len(kinds)


def as_markdown(results: Iterable[Result]) -> str:
    """Two tables: outcomes by how a case was made, and the codes of refusals."""
    rows = list(results)
    outcomes = Counter((result.kind, result.outcome.kind) for result in rows)
    reached = Counter(result.kind for result in rows if result.outcome.reached_compiler)
    made = Counter(result.kind for result in rows)
    shown = [Kind.REFUSED, Kind.ACCEPTED, Kind.CRASHED, Kind.OUT_OF_MEMORY, Kind.TIMED_OUT, Kind.FAULT]
    names = ["refused", "imported", "compiler crashed", "out of memory", "timed out", "fault of Tessera"]
    lines = [f"| cases | number | reached the compiler | {' | '.join(names)} |", f"|---|{'--:|' * (2 + len(names))}"]
    for kind in KINDS:
        counts = [made[kind], reached[kind], *(outcomes[kind, each] for each in shown)]
        lines.append(f"| {kind} | {' | '.join(map(_number, counts))} |")
    totals = [len(rows), reached.total(), *(sum(outcomes[kind, each] for kind in KINDS) for each in shown)]
    lines.append(f"| all | {' | '.join(map(_number, totals))} |")
    codes = Counter(result.outcome.code for result in rows if result.outcome.kind == Kind.REFUSED)
    lines += ["", "| refused with | |", "|---|--:|"]
    lines += [f"| `{code}` | {_number(count)} |" for code, count in codes.most_common()]
    return "\n".join(lines)


def write_into(page: Path, text: str) -> None:
    """Put the text between the page's marks."""
    begin, end = map(re.escape, _MARKS)
    whole, count = re.subn(
        f"{begin}.*?{end}", lambda _: f"{_MARKS[0]}\n{text}\n{_MARKS[1]}", page.read_text(), flags=re.DOTALL
    )
    assert count == 1, f"{page} has no place for the table"
    page.write_text(whole)


def _number(count: int) -> str:
    return f"{count:,}".replace(",", "\N{NARROW NO-BREAK SPACE}") if count >= 10_000 else str(count)
