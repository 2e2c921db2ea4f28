"""Design spaces read from TVM, and their traces replayed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tvm
from tvm import te, topi
from tvm.target import Target

from schedules.decisions import GeneKind
from schedules.space import ReplayError, design_spaces, initialized_postprocs, plain, read_anchor, replay
from tuner.targets import host_target

TARGET = Target(host_target().tvm)


@pytest.fixture(scope="module")
def convolution() -> tvm.IRModule:
    data, weight = te.placeholder((1, 14, 14, 16), name="data"), te.placeholder((3, 3, 16, 32), name="weight")
    output = topi.nn.relu(topi.nn.conv2d_nhwc(data, weight, 2, 1, 1))
    return tvm.IRModule({"main": te.create_prim_func([data, weight, output]).with_attr("layout_free_buffers", [1])})


def test_the_anchor_of_a_convolution(convolution: tvm.IRModule) -> None:
    anchor = read_anchor(convolution, "conv2d_nhwc")
    assert anchor is not None
    assert anchor.extents == (1, 7, 7, 32, 3, 3, 16)
    assert anchor.reduction == (False, False, False, False, True, True, True)
    padded, weight, output = anchor.accesses
    # rows of the input move by the stride of 2 with h and by 1 with kh
    assert padded.strides.tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [0, 2, 0, 0, 1, 0, 0],
        [0, 0, 2, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    assert (padded.layout_free, weight.layout_free, output.is_write) == (False, True, True)
    assert read_anchor(convolution, "no_such_block") is None


def test_replayed_traces_take_the_decisions_they_were_given(convolution: tvm.IRModule) -> None:
    spaces = design_spaces(convolution, TARGET, cores=2, vector_bits=512, seed=1)
    assert len({space.variant for space in spaces}) == len(spaces) >= 2
    processors = initialized_postprocs(convolution, TARGET)
    rng = np.random.default_rng(1)
    for space in spaces:
        decisions = space.decisions(space.random(1, rng)[0])
        scheduled = replay(convolution, space.trace_json(decisions), processors)
        taken = dict(plain(scheduled.trace.as_json(True))[1])
        for gene, row in zip(space.genes, decisions, strict=True):
            if gene.kind is not GeneKind.LOCATION:  # TVM moves an impossible location to a possible one
                assert taken[gene.instruction] == (list(row) if gene.kind is GeneKind.TILE else row[0])


def test_a_trace_that_does_not_fit_is_refused(convolution: tvm.IRModule) -> None:
    (space, *_) = design_spaces(convolution, TARGET, cores=2, vector_bits=512, seed=1)
    instructions = json.loads(space.trace_json(space.decisions(space.random(1, np.random.default_rng(1))[0])))[0]
    renamed = json.dumps([[["GetSBlock", [], ["nothing", "main"], ["b0"]], *instructions], []])
    with pytest.raises(ReplayError, match="does not apply"):
        replay(convolution, renamed, initialized_postprocs(convolution, TARGET))


def test_the_reductions_of_a_softmax_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("schedules.space.template_for", lambda _: None)
    data = te.placeholder((1, 64), name="data")
    mod = tvm.IRModule({"main": te.create_prim_func([data, topi.nn.softmax(data)])})
    spaces = design_spaces(mod, TARGET, cores=2, vector_bits=512, seed=1)
    reduces = {gene.block: gene.reduces for space in spaces for gene in space.genes if gene.kind is GeneKind.LOCATION}
    assert reduces["T_softmax_maxelem"]
    assert reduces["T_softmax_expsum"]
    assert not reduces["T_softmax_exp"]
