"""Following a job: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from service.cli.options import say
from service.cli.values import show_duration, show_us

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from service.client import Client
    from service.schemas.jobs import JobSchema

# Plain lines tell of progress this often, so that a log of an hour stays readable.
_LINE_EVERY_S = 10.0


class _Display(Protocol):
    def progress(self, data: dict[str, Any]) -> None: ...

    def line(self, text: str) -> None: ...

    def __enter__(self) -> _Display: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None: ...


def watch(client: Client, job_id: str) -> JobSchema:
    """Show the job's events until it has ended; returns the ended job."""
    with _Bar() if sys.stderr.isatty() else _Lines() as display:
        for kind, data in client.events(job_id):
            _show(display, kind, data)
    return client.job(job_id)


def _show(display: _Display, kind: str, data: dict[str, Any]) -> None:
    if kind == "stage":
        display.line(f"stage: {data.get('stage')}")
    elif kind == "progress":
        display.progress(data)
    elif kind == "tasks":
        tasks = data.get("tasks") or []
        display.line(f"{len(tasks)} tasks, {sum(1 for task in tasks if task.get('tunable'))} of them tunable")
    elif kind == "baseline":
        display.line(
            f"untuned {show_us(data.get('latency_us'), data.get('spread_us'))}, "
            f"ONNX Runtime {show_us(data.get('onnxruntime_us'))}"
        )
    elif kind == "log" and data.get("level") in ("warning", "error"):
        display.line(f"{data['level']}: {data.get('message')}")
    elif kind == "state" and (data.get("attempts") or 1) > 1:
        display.line(f"resumed (attempt {data['attempts']})")


def _status(data: dict[str, Any]) -> str:
    total = data.get("trials_total")
    trials = f"{data.get('trials_done', 0)}{f'/{total}' if total else ''} trials"
    best = f", best {show_us(data['estimated_us'])} estimated" if data.get("estimated_us") else ""
    eta = f", {show_duration(data['eta_s'])} left" if data.get("eta_s") is not None else ""
    return f"{trials}{best}{eta}"


class _Lines:
    def __init__(self) -> None:
        self._next_s = 0.0

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        return None

    def progress(self, data: dict[str, Any]) -> None:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _LINE_EVERY_S
            say(_status(data))

    def line(self, text: str) -> None:
        say(text)


class _Bar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._bar: Progress = Progress(
            SpinnerColumn(),
            BarColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True, markup=False, highlight=False),
        )
        self._task: TaskID = self._bar.add_task("starting", total=1.0)

    def __enter__(self) -> _Bar:
        self._bar.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self._bar.__exit__(kind, value, tb)

    def progress(self, data: dict[str, Any]) -> None:
        self._bar.update(self._task, completed=data.get("fraction", 0.0), description=_status(data))

    def line(self, text: str) -> None:
        self._bar.print(text)
