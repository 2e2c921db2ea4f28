"""Random chains, scheduled at random, compute what NumPy says: 300 of them, or as many as `TESSERA_TEST_CHAINS`."""

from __future__ import annotations

import os

import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from tvm.ir import IRModule
from tvm.s_tir import Schedule
from tvm.tirx import PrimFunc

from schedules.space import initialized_postprocs
from schedules.windows.lower import lower
from schedules.windows.rows import Mode
from schedules.windows.stages import Chain
from schedules.windows.template import schedule_chain
from tests.schedules import building
from tests.schedules.windows.chains import arrays, chains, expected, planned

_CHAINS = int(os.environ.get("TESSERA_TEST_CHAINS", "300"))
_SHARDS = 10
"""Each is a test of its own, so that all cores have one."""


def scheduled(function: PrimFunc, *, seed: int) -> PrimFunc:
    mod = IRModule({"main": function})
    sch = Schedule(mod, seed=seed)
    schedule_chain(sch)
    sch.enter_postproc()
    assert all(processor.apply(sch) for processor in initialized_postprocs(mod, building.TARGET))
    return sch.mod["main"]


@pytest.mark.parametrize("shard", range(_SHARDS))
@pytest.mark.slow
def test_random_chains_compute_the_same(shard: int) -> None:
    @seed(shard * _CHAINS)
    @settings(max_examples=_CHAINS // _SHARDS, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(chain=chains(), rows_per_step=st.integers(1, 5), data=st.data())
    def check(chain: Chain, rows_per_step: int, data: st.DataObject) -> None:
        modes = [data.draw(st.sampled_from(list(Mode))) for _ in chain.stages[1:]]
        most = 1 if chain.averages else 4
        strips, tiles = data.draw(st.integers(1, most)), data.draw(st.integers(1, min(most, chain.output.columns)))
        plan = planned(chain, rows_per_step=rows_per_step, strips=strips, tiles=tiles, modes=modes)
        function, values = lower(chain, plan), arrays(chain, plan)
        reference = expected(chain, values)
        forms = {"plain": function, "scheduled": scheduled(function, seed=data.draw(st.integers(1, 2**20)))}
        built = tvm.compile(
            IRModule({name: form.with_attr("global_symbol", name) for name, form in forms.items()}),
            target=building.TARGET,
        )
        for name in forms:
            tensors = {each: tvm.runtime.tensor(array.copy()) for each, array in values.items()}
            built[name](*tensors.values())
            output = tensors["y"].numpy()[0]
            # Sums may cancel: the inputs, of about 1, bound the error from below. Not a number is never close.
            assert np.abs(output - reference).max() <= 1e-5 * max(1.0, np.abs(reference).max()), name

    check()
