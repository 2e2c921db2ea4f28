"""Schedules for GPUs: bound to threads, refused where they do not fit, and right when their threads take turns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import te, topi
from tvm.target import Target

from schedules.decisions import DecisionSpace
from schedules.gpu.threads import bind_the_rest, is_gpu, one_after_another
from schedules.space import ReplayError, design_spaces, initialized_postprocs, replay
from tuner.search.gpu_prior import gpu_scores

TARGET = Target(
    {
        "kind": "cuda",
        "arch": "sm_80",
        "max_threads_per_block": 1024,
        "max_shared_memory_per_block": 49152,
        "thread_warp_size": 32,
        "host": {"kind": "llvm"},
    }
)


def convolution() -> tuple[list[te.Tensor], te.Tensor]:
    x = te.placeholder((1, 14, 14, 32), name="x")
    w = te.placeholder((3, 3, 32, 48), name="w")
    return [x, w], topi.nn.relu(topi.nn.conv2d_nhwc(x, w, 1, 1, 1))


def dense() -> tuple[list[te.Tensor], te.Tensor]:
    x, w = te.placeholder((4, 320), name="x"), te.placeholder((100, 320), name="w")
    return [x, w], topi.nn.dense(x, w)


def softmax() -> tuple[list[te.Tensor], te.Tensor]:
    x = te.placeholder((6, 250), name="x")
    return [x], topi.nn.softmax(x)


def module(build: Callable[[], tuple[list[te.Tensor], te.Tensor]]) -> tvm.IRModule:
    inputs, output = build()
    function = te.create_prim_func([*inputs, output])
    return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def compute(mod: tvm.IRModule, build: Callable[[], tuple[list[te.Tensor], te.Tensor]]) -> np.ndarray:
    rng = np.random.default_rng(1)
    inputs, output = build()
    arrays = [rng.standard_normal([int(extent) for extent in each.shape], dtype=np.float32) for each in inputs]
    arguments = [
        tvm.runtime.tensor(array) for array in [*arrays, np.full([int(e) for e in output.shape], np.nan, "f4")]
    ]
    tvm.compile(mod, target=Target({"kind": "llvm"}))["main"](*arguments)
    return arguments[-1].numpy()


def scheduled(mod: tvm.IRModule, space: DecisionSpace, count: int) -> list[tvm.IRModule]:
    """The best of random candidates, as the prior says, that are legal."""
    genomes = space.random(1000, np.random.default_rng(3))
    best = genomes[np.argsort(-gpu_scores(space, genomes))[:count]]
    processors = initialized_postprocs(mod, TARGET)
    found = []
    for genome in best:
        try:
            found.append(replay(mod, space.trace_json(space.decisions(genome)), processors).mod)
        except ReplayError:
            continue
    return found


@pytest.mark.parametrize("build", [convolution, dense, softmax])
def test_schedules_are_right_when_their_threads_take_turns(
    build: Callable[[], tuple[list[te.Tensor], te.Tensor]],
) -> None:
    mod = module(build)
    expected = compute(mod, build)
    spaces = design_spaces(mod, TARGET, cores=1, vector_bits=128, seed=0)
    candidates = [candidate for space in spaces for candidate in scheduled(mod, space, 6)]
    assert candidates
    for candidate in candidates:
        text = candidate.script()
        assert "threadIdx.x" in text
        turns = one_after_another(candidate)
        assert "thread_binding" not in turns.script()
        assert 'scope="' not in turns.script()
        np.testing.assert_allclose(compute(turns, build), expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_fetches_together_and_sums_in_registers() -> None:
    mod = module(convolution)
    spaces = design_spaces(mod, TARGET, cores=1, vector_bits=128, seed=0)
    legal = [candidate for space in spaces for candidate in scheduled(mod, space, 10)]
    assert len(legal) >= 5  # the prior knows what has no room
    for candidate in legal:
        assert {'scope="shared"', 'scope="local"', "blockIdx.x"} <= {
            each for each in ('scope="shared"', 'scope="local"', "blockIdx.x") if each in candidate.script()
        }


def test_the_prior_refuses_what_no_gpu_has_room_for() -> None:
    mod = module(convolution)
    (space,) = design_spaces(mod, TARGET, cores=1, vector_bits=128, seed=0)
    genomes = space.random(300, np.random.default_rng(5))
    scores = gpu_scores(space, genomes)
    processors = initialized_postprocs(mod, TARGET)
    for genome in genomes[scores < -25][:20]:
        with pytest.raises(ReplayError):
            replay(mod, space.trace_json(space.decisions(genome)), processors)


def total() -> tuple[list[te.Tensor], te.Tensor]:
    x = te.placeholder((40,), name="x")
    return [x], topi.sum(x, axis=0)


@pytest.mark.parametrize("build", [convolution, dense, softmax, total])
def test_what_has_no_schedule_is_bound_too(build: Callable[[], tuple[list[te.Tensor], te.Tensor]]) -> None:
    bound = bind_the_rest(module(build))
    blocks = bound.script().count("T.sblock(") - bound.script().count('T.sblock("root")')
    assert bound.script().count('thread="threadIdx.x"') == blocks
    np.testing.assert_allclose(
        compute(one_after_another(bound), build), compute(module(build), build), rtol=1e-5, atol=1e-6
    )
    assert bind_the_rest(bound)["main"].same_as(bound["main"])


def test_functions_for_cpus_stay_as_they_are() -> None:
    mod = module(dense)
    assert one_after_another(mod)["main"].same_as(mod["main"])
    assert is_gpu(TARGET)
    assert not is_gpu(Target({"kind": "llvm"}))
