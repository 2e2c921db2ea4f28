"""The nine light models of the onnx package: real architectures with constant weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.random_weights import randomize_weights
from tests.tuner.networks import compile_model
from tuner.frontend.convert import import_model
from tuner.frontend.preflight import prepare_model
from tuner.verify import verify_module

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

# Multiply-adds of the papers and of torchvision's tables, in units of 1e9, for 224×224 inputs.
BILLION_MACS = {
    "bvlc_alexnet": 0.65,
    "densenet121": 2.85,
    "inception_v1": 1.6,
    "inception_v2": 2.0,
    "resnet50": 4.1,
    "shufflenet": 0.125,
    "squeezenet": 0.35,
    "vgg19": 19.6,
    "zfnet512": 1.4,
}


def path_of(name: str) -> Path:
    return LIGHT / f"light_{name}.onnx"


def test_the_table_names_all_of_them() -> None:
    assert sorted(BILLION_MACS) == sorted(path.stem.removeprefix("light_") for path in LIGHT.glob("light_*.onnx"))


@pytest.mark.parametrize("name", BILLION_MACS)
def test_preflight_accepts_it_and_counts_like_the_papers(name: str) -> None:
    report = prepare_model(path_of(name), {}).report
    assert report.flops / 2e9 == pytest.approx(BILLION_MACS[name], rel=0.12)
    assert [spec.shape for spec in report.inputs] == [(1, 3, 224, 224)]
    assert [int(np.prod(spec.shape)) for spec in report.outputs] == [1000]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "inception_v2"])
def test_it_is_imported_with_static_shapes(name: str) -> None:
    imported = import_model(path_of(name))
    assert len(imported.module["main"].params) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squeezenet", "shufflenet"])
def test_with_random_weights_the_untuned_build_agrees_with_onnxruntime(name: str, tmp_path: Path) -> None:
    model = randomize_weights(onnx.load(path_of(name)), seed=0)
    network = compile_model(model, tmp_path)
    output = next(iter(network.reference[0].values()))
    assert len(np.unique(output)) > 500, "a saturated output hides mistakes"
    imported = network.imported
    found = verify_module(
        network.module, network.samples, network.reference, inputs=imported.inputs, outputs=imported.outputs, threads=2
    )
    found.require()


def test_random_weights_depend_on_the_seed_only() -> None:
    model = onnx.load(path_of("squeezenet"))
    one, again, other = (randomize_weights(model, seed=seed).SerializeToString() for seed in (1, 1, 2))
    assert one == again
    assert one != other
