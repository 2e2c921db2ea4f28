"""The two kernels of a roofline: right in what they compute, and in how much they say that it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tvm

from tuner.roofline_kernels import describe_roofline, with_roofline
from tuner.targets import find_target, host_target


def test_the_kernels_do_what_is_said_of_them() -> None:
    spec = host_target()
    described = describe_roofline(spec)
    built = tvm.compile(with_roofline(tvm.IRModule(), spec), target=tvm.target.Target(spec.tvm))
    rng = np.random.default_rng(1)
    for name, work in described.items():
        shapes = work["shapes"]
        arrays = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        tensors = [tvm.runtime.tensor(array) for array in arrays]
        built[name](*tensors)
        *inputs, _ = arrays
        if "flops" in work:
            expected = np.einsum("trk,tkc->trc", *inputs)
            found = tensors[-1].numpy()
            np.testing.assert_allclose(found, np.broadcast_to(expected[:, None], found.shape), rtol=1e-4, atol=1e-4)
            assert work["flops"] == 2 * inputs[0].shape[-1] * math.prod(found.shape)
        else:
            np.testing.assert_array_equal(tensors[-1].numpy(), inputs[0])
            assert work["bytes"] == 2 * inputs[0].nbytes


@pytest.mark.parametrize("name", ["raspberry-pi-4", "armv7", "riscv64-rva23", "x86-64-avx2"])
def test_every_processor_has_them(name: str) -> None:
    spec = find_target(name)
    module = with_roofline(tvm.IRModule(), spec)
    assert {variable.name_hint for variable in module.functions} == describe_roofline(spec).keys()
    tvm.compile(module, target=tvm.target.Target(spec.tvm))


def test_gpus_have_none() -> None:
    spec = find_target("cuda-8.0")
    assert describe_roofline(spec) == {}
    assert not with_roofline(tvm.IRModule(), spec).functions
