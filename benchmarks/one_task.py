"""The search on a single task of `search_tasks`, without a job around it."""

from __future__ import annotations

from pathlib import Path

import tvm
from tvm.s_tir.analysis import estimate_tir_flops
from tvm.target import Target

from benchmarks.search_tasks import workload
from schedules.space import design_spaces
from tuner.cost_model_store import MemoryCostModelStore
from tuner.events import EventSink
from tuner.measure.jobs import Builder, Runner
from tuner.records import RecordStore, Workload
from tuner.search.alternatives import Use
from tuner.search.loop import LoopConfig
from tuner.targets import TargetSpec, tvm_version
from tuner.tuning import Tuning, TuningTask


def one_task(
    name: str,
    *,
    spec: TargetSpec,
    store: RecordStore,
    builder: Builder,
    runner: Runner,
    sink: EventSink,
    scratch: Path,
    seed: int,
) -> Tuning:
    """Ready to run, to the end of its budget: it does not stop when nothing is to be gained any more."""
    mod = workload(name)
    flops = float(estimate_tir_flops(mod))
    stored = Workload(key=name, tvm_version=tvm_version(), name=name, module_json=tvm.ir.save_json(mod), flops=flops)
    spaces = design_spaces(mod, Target(spec.tvm), cores=spec.threads, vector_bits=spec.vector_bits, seed=seed)
    return Tuning(
        tasks=[TuningTask(key=name, name=name, workload=stored, uses=(Use(count=1),), spaces=spaces)],
        target=spec,
        store=store,
        models=MemoryCostModelStore(),
        builder=builder,
        runner=runner,
        sink=sink,
        scratch=scratch,
        seed=seed,
        config=LoopConfig(stop_gain=0.0),
    )
