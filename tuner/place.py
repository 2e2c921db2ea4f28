"""Where the code of a job runs: on this machine, or on boards of a fleet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tuner.board_process import BoardProcess
from tuner.compare import Contender, Latency, compare
from tuner.errors import WorkerError
from tuner.frontend.convert import ImportedModel
from tuner.measure.fleet import FleetRunner, NoBoardError
from tuner.measure.runner import LocalRunner
from tuner.memory import measured_peak_bytes
from tuner.network_process import RunnableNetwork, Sample
from tuner.request import TuneRequest
from tuner.targets import can_measure, checked_on, host_target, no_device
from tuner.verify import NumericsReport, verify_module


class Place:
    """``spec`` is what code is built for to be run there: the job's target, or this machine where that cannot be run.

    Raises `TargetError` (``no_device``) for a job that is to be measured where nothing can.
    """

    def __init__(self, request: TuneRequest) -> None:
        target = request.target
        if request.measure == "device" and (target.is_gpu or not (request.fleet or can_measure(target))):
            raise no_device(request.target)
        self._request = request
        self._fleet = request.fleet
        # A fleet's boards run the target's own code.
        self.spec = target if request.fleet else checked_on(target)

    @property
    def runs_the_target(self) -> bool:
        return self.spec is self._request.target

    @property
    def builders(self) -> int:
        """How many builds go on at a time: they are made on this machine."""
        return host_target().threads if self._fleet else self.spec.threads

    def runner(self) -> FleetRunner | LocalRunner:
        """What times candidates."""
        if self._fleet is not None:
            return FleetRunner(self._fleet, self._request.target.name)
        return LocalRunner(threads=self.spec.threads)

    def verify(
        self, module: Path, model: ImportedModel, samples: Sequence[Sample], reference: Sequence[Sample]
    ) -> NumericsReport:
        """A built network's outputs against ONNX Runtime's. Raises `WorkerError` when it crashes."""
        with self._board() as board:
            return verify_module(
                module,
                samples,
                reference,
                inputs=model.inputs,
                outputs=model.outputs,
                threads=self.spec.threads,
                board=board,
            )

    def compare(
        self,
        modules: Mapping[str, Path],
        model: ImportedModel,
        sample: Sample,
        *,
        time_budget_s: float,
        with_onnxruntime: bool = False,
        afterwards: Callable[[Mapping[str, RunnableNetwork]], None] | None = None,
    ) -> dict[str, Latency]:
        """Built networks timed in turns, with ONNX Runtime among them where that is wanted and there: boards do not
        have it. ``afterwards`` is called with all of them, still loaded. Raises `WorkerError` when one crashes."""
        contenders = {name: Contender(path=path) for name, path in modules.items()}
        if with_onnxruntime and not self._fleet:
            contenders["onnxruntime"] = Contender(path=self._request.model_path, kind="onnxruntime")
        with self._board() as board:
            return compare(
                contenders,
                model.inputs,
                sample,
                threads=self._request.target.threads,
                time_budget_s=time_budget_s,
                board=board,
                afterwards=afterwards,
            )

    def peak_bytes(self, module: Path, model: ImportedModel, sample: Sample) -> int | None:
        """What a run of a built network allocates at most; None where nothing is measured, and on boards."""
        if self._request.measure != "device" or self._fleet:
            return None
        return measured_peak_bytes(module, sample, [spec.name for spec in model.inputs], threads=self.spec.threads)

    @contextmanager
    def _board(self) -> Iterator[BoardProcess | None]:
        """A board of the fleet for one stage, where there is a fleet; raises `NoBoardError` where its last board is
        gone, whatever that did to what was run on it."""
        if self._fleet is None:
            yield None
            return
        key = self._request.target.name
        try:
            with BoardProcess(self._fleet, key) as board:
                yield board
        except WorkerError as error:
            if self._fleet.fleet().of(key):
                raise
            raise NoBoardError(f"The last board of {key} is gone.") from error
