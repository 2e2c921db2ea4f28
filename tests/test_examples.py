"""The shipped examples are what the documentation says."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import onnxruntime
import pytest

from tuner.frontend.preflight import prepare_model

Import = Callable[[str], ModuleType]

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(scope="module")
def example() -> Iterator[Import]:
    """Imports a script as it runs: with its folder in the path."""
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module
    sys.path.remove(str(EXAMPLES))


def run(model: onnx.ModelProto, *inputs: np.ndarray) -> list[np.ndarray]:
    """ONNX Runtime's output for each value of the one input."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [name] = [value.name for value in session.get_inputs()]
    return [session.run(None, {name: value})[0] for value in inputs]


def random_inputs(count: int, *shape: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for _ in range(count)]


def assert_sane(one: np.ndarray, other: np.ndarray) -> None:
    """Two outputs that neither vanish nor explode, and depend on the input."""
    assert 0.05 < one.std() < 20
    assert np.abs(one - other).max() > 1e-3


def parameters(model: onnx.ModelProto) -> int:
    """Trained numbers: float weights that are no scalars."""
    weights = [weight for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT]
    return sum(int(np.prod(weight.dims)) for weight in weights if weight.dims)


def multiply_accumulates(model: onnx.ModelProto) -> int:
    """Of the convolutions, linear layers and matrix products, from inferred shapes."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output]
    }
    weights = {weight.name: weight.dims for weight in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += int(np.prod(shapes[node.output[0]]) * np.prod(weights[node.input[1]][1:]))
        elif node.op_type == "ConvTranspose":
            total += int(np.prod(shapes[node.input[0]]) * np.prod(weights[node.input[1]][1:]))
        elif node.op_type == "Gemm":
            total += int(np.prod(weights[node.input[1]]))
        elif node.op_type == "MatMul":
            total += int(np.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1])
    return total


def test_the_digits_network_is_small_static_and_big_enough_to_tune() -> None:
    path = EXAMPLES / "digits_cnn.onnx"
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert path.stat().st_size < 1_000_000
    assert 2 * multiply_accumulates(model) >= 20_000_000
    assert {i.data_location for i in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
    assert model.opset_import[0].version >= 17


def test_the_digits_network_reads_the_held_out_pictures() -> None:
    held_out = np.load(EXAMPLES / "digits_test.npz", allow_pickle=False)
    images, labels = held_out["images"], held_out["labels"]
    assert images.shape == (360, 1, 32, 32)
    assert images.dtype == np.float32
    session = onnxruntime.InferenceSession(EXAMPLES / "digits_cnn.onnx", providers=["CPUExecutionProvider"])
    right = [
        session.run(None, {"image": image[None]})[0].argmax() == label
        for image, label in zip(images, labels, strict=True)
    ]
    assert np.mean(right) >= 0.98
    assert len(set(labels.tolist())) == 10


@pytest.mark.parametrize("clip", [True, False])
def test_mobilenet_v2_runs_with_activations_of_a_sane_size(example: Import, clip: bool) -> None:
    model = example("build_mobilenet_v2").mobilenet_v2(width=0.35, resolution=64, classes=10, clip=clip)
    one, other = run(model, *random_inputs(2, 1, 3, 64, 64))
    assert_sane(one, other)


def test_mobilenet_v2_has_the_published_size(example: Import) -> None:
    """The paper gives 3.4 M parameters and 300 M multiply-adds at width 1.0 and 224 pixels."""
    model = example("build_mobilenet_v2").mobilenet_v2()
    assert parameters(model) == pytest.approx(3.4e6, rel=0.05)
    assert multiply_accumulates(model) == pytest.approx(300e6, rel=0.05)


def test_mobilenet_v2_may_have_the_channels_of_the_literature_on_microcontrollers(example: Import) -> None:
    model = example("build_mobilenet_v2").mobilenet_v2(width=0.35, resolution=144, truncate=True)
    widths = [value.dims[0] for value in model.graph.initializer if value.name.endswith("project.weight")]
    assert widths[:3] == [5, 8, 8]


def test_a_u_net_sees_the_picture_in_full_at_every_pixel(example: Import) -> None:
    one, other = run(example("build_unet").unet(resolution=32, channels=4), *random_inputs(2, 1, 3, 32, 32))
    assert one.shape == (1, 2, 32, 32)
    assert_sane(one, other)


def test_a_filter_keeps_the_size_of_the_frame(example: Import) -> None:
    model = example("build_filter").two_stages(rows=12, columns=20, channels=8)
    one, other = run(model, *random_inputs(2, 1, 3, 12, 20))
    assert one.shape == (1, 3, 12, 20)
    assert_sane(one, other)


def test_resnet18_runs_with_activations_of_a_sane_size(example: Import) -> None:
    one, other = run(example("build_resnet18").resnet18(resolution=64, classes=10), *random_inputs(2, 1, 3, 64, 64))
    assert_sane(one, other)


def test_resnet18_has_the_published_size(example: Import) -> None:
    """The paper gives 1.8 G multiply-adds; torchvision's has 11,689,512 parameters with unfolded batch norms."""
    model = example("build_resnet18").resnet18()
    assert parameters(model) == pytest.approx(11_689_512, rel=0.001)
    assert multiply_accumulates(model) == pytest.approx(1.81e9, rel=0.01)
    sizes = {weight.name: weight.dims[-1] for weight in model.graph.initializer if len(weight.dims) == 4}
    assert {size: list(sizes.values()).count(size) for size in sizes.values()} == {7: 1, 3: 16, 1: 3}


@pytest.mark.parametrize("relu", [True, False])
def test_every_token_of_the_encoder_looks_at_every_other(example: Import, relu: bool) -> None:
    model = example("build_transformer_encoder").transformer_encoder(
        layers=1, sequence=6, width=16, heads=4, hidden=32, relu=relu
    )
    [value] = random_inputs(1, 1, 6, 16)
    changed = value.copy()
    changed[0, 0] += 1
    one, other = run(model, value, changed)
    assert one.shape == (1, 6, 16)
    assert 0.5 < one.std() < 2
    assert (np.abs(one - other).max(axis=-1) > 1e-4).all()


def test_the_encoder_has_the_size_of_its_layers(example: Import) -> None:
    """PyTorch's `nn.TransformerEncoderLayer(256, 8, 1024)` has 789,760 parameters."""
    model = example("build_transformer_encoder").transformer_encoder()
    assert parameters(model) == 4 * 789_760
    a_layer = 4 * 128 * 256**2 + 2 * 8 * 128**2 * 32 + 2 * 128 * 256 * 1024
    assert multiply_accumulates(model) == 4 * a_layer
    operators = [node.op_type for node in model.graph.node]
    assert {name: operators.count(name) for name in ("Softmax", "LayerNormalization", "Erf")} == {
        "Softmax": 4,
        "LayerNormalization": 8,
        "Erf": 4,
    }


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("build_mobilenet_v2.py", ["--width", "0.35", "--resolution", "64"]),
        ("build_resnet18.py", ["--resolution", "64"]),
        ("build_mobilenet_v2.py", ["--width", "0.35", "--resolution", "64", "--truncate"]),
        ("build_transformer_encoder.py", ["--layers", "1"]),
        ("build_unet.py", ["--resolution", "32", "--channels", "4"]),
        ("build_filter.py", ["--rows", "27", "--columns", "48"]),
    ],
)
def test_a_script_writes_a_model_that_can_be_tuned(tmp_path: Path, script: str, options: list[str]) -> None:
    """Static shapes, operators that the importer has, and the arithmetic that the graph says."""
    path, again = tmp_path / "model.onnx", tmp_path / "again.onnx"
    for output in (path, again):
        subprocess.run([sys.executable, EXAMPLES / script, *options, "--out", output], check=True, capture_output=True)
    assert path.read_bytes() == again.read_bytes()
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    report = prepare_model(path, {}).report
    assert report.flops == pytest.approx(2 * multiply_accumulates(model), rel=0.05)
    assert report.weights_bytes >= 4 * parameters(model)
