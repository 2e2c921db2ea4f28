"""The operators of a chain: what each computes from the rows of the one before."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from schedules.windows.rows import Window


class Kind(StrEnum):
    """What a stage computes of its window. A copy has a window of one element: it puts the chain's input into a ring,
    with the padding that the next stage reads."""

    COPY = "copy"
    CONVOLUTION = "convolution"
    DEPTHWISE = "depthwise"
    MAX_POOL = "max_pool"
    AVERAGE_POOL = "average_pool"


@dataclass(frozen=True, kw_only=True)
class Bias:
    """Add one constant a channel; the constants are a parameter of the function."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Multiply by one constant a channel; the constants are a parameter of the function."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """Bound from below and above; None is no bound. ReLU is ``Clip(low=0.0, high=None)``."""

    low: float | None
    high: float | None


@dataclass(frozen=True, kw_only=True)
class Residual:
    """Add another tensor of the stage's shape: the chain's own input, or one more parameter of the function."""

    is_chain_input: bool


Step = Bias | Scale | Clip | Residual


@dataclass(frozen=True, kw_only=True)
class Picture:
    """Rows, columns and channels of an NHWC tensor of batch one."""

    rows: int
    columns: int
    channels: int

    @property
    def elements(self) -> int:
        return self.rows * self.columns * self.channels

    def __str__(self) -> str:
        return f"{self.rows}×{self.columns}×{self.channels}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One operator with its epilogue. Convolutions have HWIO weights, depthwise ones HWC."""

    kind: Kind
    down: Window
    across: Window
    output: Picture
    epilogue: tuple[Step, ...] = ()

    def macs(self, inputs: int) -> int:
        """Multiplications of one output pixel, for so many input channels; none for pooling."""
        if self.kind not in (Kind.CONVOLUTION, Kind.DEPTHWISE):
            return 0
        products = self.down.kernel * self.across.kernel * (inputs if self.kind is Kind.CONVOLUTION else 1)
        return self.output.channels * products


@dataclass(frozen=True, kw_only=True)
class Chain:
    """Stages in their order, and the picture that the first one reads. Element type is float32.

    A planar source lies channel after channel (NCHW), as networks get it from outside: its first stage is a copy. Of a
    chain that averages only the mean over all rows and columns is kept, of every channel of the last stage.
    """

    source: Picture
    stages: tuple[Stage, ...]
    is_planar: bool = False
    averages: bool = False

    @property
    def output(self) -> Picture:
        """What the last stage computes, row by row."""
        return self.stages[-1].output

    @property
    def result(self) -> Picture:
        """What is written in the end."""
        return replace(self.output, rows=1, columns=1) if self.averages else self.output

    def read_by(self, stage: int) -> Picture:
        """What a stage reads."""
        return self.source if stage == 0 else self.stages[stage - 1].output
