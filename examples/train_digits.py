"""Train a small convolutional network on scikit-learn's handwritten digits and export it to ONNX.

It wrote the two files next to it that `tessera demo` uses:

- ``digits_cnn.onnx``: float32, input ``image`` (1, 1, 32, 32), output ``logits`` (1, 10), about 36 MFLOP per inference
- ``digits_test.npz``: the held-out pictures, ``images`` float32 (N, 1, 32, 32) and ``labels`` int64 (N,)

The pictures are 8×8 in 17 grey levels; they are scaled to [0, 1] and upsampled bilinearly to 32×32, so that the network
has convolutions worth tuning. Training takes about a minute on two cores. Only this script needs PyTorch, Tessera never
does, so give it a virtual environment of its own::

    python3 -m venv /tmp/torch-env
    /tmp/torch-env/bin/pip install torch==2.13.0 onnx scikit-learn
    /tmp/torch-env/bin/python examples/train_digits.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

HERE = Path(__file__).resolve().parent
SIDE = 32
SEED = 7
# (output channels, pool afterwards); multiples of 16, so that every vector width of today's CPUs divides them.
STAGES = ((16, False), (32, True), (48, False), (64, True), (64, False))


def load_pictures() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training and held-out pictures and labels: 80 % and 20 %, the same split every time."""
    digits = load_digits()
    pixels = torch.tensor(digits.images / 16.0, dtype=torch.float32).unsqueeze(1)
    pictures = functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=SEED, stratify=digits.target)
    return pictures[train], labels[train], pictures[test], labels[test]


class DigitsNet(nn.Module):
    """3×3 convolutions with ReLU, two max-pools, global average pooling and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, pool in STAGES:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if pool:
                layers.append(nn.MaxPool2d(2))
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(image)), 1))

    def folded(self) -> DigitsNet:
        """The same function with every batch norm folded into its convolution."""
        self.eval()
        layers: list[nn.Module] = []
        for layer in self.features:
            if isinstance(layer, nn.BatchNorm2d):
                convolution = layers.pop()
                assert isinstance(convolution, nn.Conv2d)
                layers.append(fuse_conv_bn_eval(convolution, layer))
            else:
                layers.append(layer)
        self.features = nn.Sequential(*layers)
        return self


def shifted(pictures: torch.Tensor) -> torch.Tensor:
    """Each batch moved by up to two pixels each way: the held-out writers place their digits a little differently."""
    dy, dx = (int(step) for step in torch.randint(-2, 3, (2,)))
    return torch.roll(functional.pad(pictures, (2, 2, 2, 2)), (dy, dx), (2, 3))[:, :, 2:-2, 2:-2]


def train(pictures: torch.Tensor, labels: torch.Tensor, *, epochs: int) -> DigitsNet:
    network = DigitsNet()
    network.train()
    batch = 64
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
    for epoch in range(epochs):
        losses = []
        order = torch.randperm(len(labels))
        for start in range(0, len(labels) - batch + 1, batch):
            chosen = order[start : start + batch]
            loss = functional.cross_entropy(network(shifted(pictures[chosen])), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        print(f"epoch {epoch + 1:2d}/{epochs}: loss {np.mean(losses):.4f}", flush=True)
    return network.folded()


def export(network: DigitsNet, path: Path) -> None:
    """One file, static batch 1, constants as initializers.

    The TorchScript exporter writes plain operators (GlobalAveragePool, Flatten), where the newer one decomposes them,
    and notes no source paths of this machine in the file.
    """
    example = torch.zeros(1, 1, SIDE, SIDE)
    torch.onnx.export(
        network, (example,), path, input_names=["image"], output_names=["logits"], opset_version=18, dynamo=False
    )
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = node.name.strip("/").replace("/", ".")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def main() -> None:
    options = argparse.ArgumentParser(description="Train and export the digits example.")
    options.add_argument("--epochs", type=int, default=14)
    options.add_argument("--out", type=Path, default=HERE, help="folder for digits_cnn.onnx and digits_test.npz")
    chosen = options.parse_args()

    torch.manual_seed(SEED)
    train_pictures, train_labels, test_pictures, test_labels = load_pictures()
    network = train(train_pictures, train_labels, epochs=chosen.epochs)
    with torch.no_grad():
        correct = (network(test_pictures).argmax(1) == test_labels).float().mean().item()
    print(f"held-out accuracy: {correct:.4f} ({len(test_labels)} pictures)")

    chosen.out.mkdir(parents=True, exist_ok=True)
    export(network, chosen.out / "digits_cnn.onnx")
    np.savez_compressed(chosen.out / "digits_test.npz", images=test_pictures.numpy(), labels=test_labels.numpy())


if __name__ == "__main__":
    main()
