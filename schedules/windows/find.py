"""Finding chains of windowed operators in a prepared network (NHWC)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import relax
from tvm.ir import IRModule

from schedules.graph.rewrite import (
    ENTRY,
    array_of,
    dtype_of,
    integers,
    is_straight,
    op_name,
    static_shape,
    variables_of,
)
from schedules.windows.lower import reads_padding
from schedules.windows.rows import Window
from schedules.windows.stages import Bias, Chain, Clip, Kind, Picture, Residual, Scale, Stage, Step

Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """A stage where it stands in a network: the variables it binds, the last one its output, and its operands: its
    weights, if it has any, and what each step of its epilogue adds or multiplies with (None: nothing)."""

    stage: Stage
    variables: tuple[relax.Var, ...]
    weights: Array | None
    operands: tuple[Array | relax.Var | None, ...]

    @property
    def output(self) -> relax.Var:
        return self.variables[-1]

    def reading(self, source: relax.Var) -> Stage:
        """The stage in a chain that begins with ``source``: what adds that adds the chain's input."""
        steps = zip(self.stage.epilogue, self.operands, strict=True)
        epilogue = tuple(
            Residual(is_chain_input=source.same_as(operand)) if isinstance(step, Residual) else step
            for step, operand in steps
        )
        return replace(self.stage, epilogue=epilogue)

    def arguments(self, source: relax.Var) -> list[Array | relax.Var]:
        """Its parameters in the order of `schedules.windows.lower.parameters_of`, in a chain that begins so."""
        weights = [] if self.weights is None else [self.weights]
        return weights + [each for each in self.operands if each is not None and not source.same_as(each)]


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundChain:
    """Neighbouring stages, each read by the next one only, and the variable that the first one reads.

    ``planar`` is what that variable is a transposition of, from NCHW, if it is one. ``mean`` is the mean over all rows
    and columns of the last stage, if that is all that reads it; it is part of the chain if that ``averages``.
    """

    source: relax.Var
    stages: tuple[Found, ...]
    planar: relax.Var | None = None
    mean: relax.Var | None = None
    averages: bool = False

    @property
    def output(self) -> relax.Var:
        return self.mean if self.averages and self.mean is not None else self.stages[-1].output

    @property
    def variables(self) -> list[relax.Var]:
        """Everything that the chain binds, in order."""
        bound = [variable for found in self.stages for variable in found.variables]
        return [*bound, self.output] if self.averages else bound

    @property
    def chain(self) -> Chain:
        """The chain to be lowered: a first stage with padding reads a copy of the input that has it, and one that would
        read a transposition of the network's input a copy that is transposed row by row."""
        picture = picture_of(self.source)
        assert picture is not None
        stages = tuple(found.reading(self.source) for found in self.stages)
        if self.planar is not None or reads_padding(stages[0], picture):
            once = Window(kernel=1)
            stages = (Stage(kind=Kind.COPY, down=once, across=once, output=picture), *stages)
        return Chain(source=picture, stages=stages, is_planar=self.planar is not None, averages=self.averages)

    @property
    def reads(self) -> relax.Var:
        """The tensor that the lowered chain reads."""
        return self.source if self.planar is None else self.planar

    @property
    def arguments(self) -> list[Array | relax.Var]:
        """The parameters of all stages in the order of `schedules.windows.lower.parameters_of`."""
        return [argument for found in self.stages for argument in found.arguments(self.source)]

    def part(self, start: int, end: int, *, averages: bool = False) -> FoundChain:
        """The stages ``[start, end)`` as a chain of their own, with the mean behind it if that ``averages``."""
        whole = replace(self, averages=averages)
        if start == 0:
            return replace(whole, stages=self.stages[:end])
        return replace(whole, source=self.stages[start - 1].output, stages=self.stages[start:end], planar=None)


def find_chains(mod: IRModule) -> list[FoundChain]:
    """The longest chains of at least two stages in ``main``, in the order of the program.

    A tensor that anything else reads ends its chain; the chain's input may be added again at the end of a stage, and so
    may any tensor from outside. Batches, other element types and operators without rows end a chain too.
    """
    function = mod[ENTRY]
    if not is_straight(function):
        return []
    reader = _Reader(function)
    chains: list[FoundChain] = []
    taken: set[relax.Var] = set()
    for variable in reader.definitions:
        if variable in taken:
            continue
        source = reader.input_of(variable)
        stages: list[Found] = []
        following: relax.Var | None = variable
        while following is not None and source is not None:
            found = reader.stage(following, source)
            if found is None:
                break
            stages.append(found)
            following = reader.only_reader(found.output)
        if stages and source is not None:
            chain = FoundChain(
                source=source,
                stages=tuple(stages),
                planar=reader.planar(source),
                mean=reader.mean_of(stages[-1].output),
            )
            taken |= set(chain.variables)
            chains += [chain] if len(stages) > 1 else []
    return chains


class _Reader:
    """Who reads what in a straight function."""

    def __init__(self, function: relax.Function) -> None:
        self.definitions = {binding.var: binding.value for binding in function.body.blocks[0].bindings}
        self._readers: dict[relax.Var, list[relax.Var]] = defaultdict(list)
        for variable, value in self.definitions.items():
            for read in variables_of(value):
                self._readers[read].append(variable)
        self._returned = set(variables_of(function.body.body))

    def input_of(self, variable: relax.Var) -> relax.Var | None:
        """The tensor that an operator with a window reads; None for every other operator."""
        value = self.definitions[variable]
        if op_name(value) not in ("nn.conv2d", "nn.max_pool2d", "nn.avg_pool2d"):
            return None
        return value.args[0] if isinstance(value.args[0], relax.Var) else None

    def planar(self, variable: relax.Var) -> relax.Var | None:
        """What a tensor is a transposition of, from NCHW to NHWC; None for all others."""
        value = self.definitions.get(variable)
        if value is None or op_name(value) != "permute_dims" or integers(value.attrs.axes) != [0, 2, 3, 1]:
            return None
        return value.args[0] if isinstance(value.args[0], relax.Var) else None

    def mean_of(self, variable: relax.Var) -> relax.Var | None:
        """The mean over the rows and columns of a picture, where nothing else reads the picture."""
        reader = self.only_reader(variable)
        value = None if reader is None else self.definitions[reader]
        if value is None or op_name(value) != "mean" or value.attrs.axis is None or not value.attrs.keepdims:
            return None
        return reader if sorted(axis % 4 for axis in integers(value.attrs.axis)) == [1, 2] else None

    def only_reader(self, variable: relax.Var) -> relax.Var | None:
        readers = self._readers[variable]
        return readers[0] if len(readers) == 1 and variable not in self._returned else None

    def stage(self, variable: relax.Var, source: relax.Var) -> Found | None:
        """The stage that begins with this binding, with as much of what follows as its epilogue can take."""
        anchor = _anchor(self.definitions[variable])
        if anchor is None:
            return None
        kind, down, across, output, weights = anchor
        variables, epilogue, operands = [variable], list[Step](), list[Array | relax.Var | None]()
        while (following := self.only_reader(variables[-1])) is not None:
            step = self._step(following, variables[-1], source, output)
            if step is None:
                break
            epilogue.append(step[0])
            operands.append(step[1])
            variables.append(following)
        stage = Stage(kind=kind, down=down, across=across, output=output, epilogue=tuple(epilogue))
        return Found(stage=stage, variables=tuple(variables), weights=weights, operands=tuple(operands))

    def _step(
        self, variable: relax.Var, before: relax.Var, source: relax.Var, output: Picture
    ) -> tuple[Step, Array | relax.Var | None] | None:
        value = self.definitions[variable]
        name = op_name(value)
        if name == "nn.relu":
            return Clip(low=0.0, high=None), None
        if name in ("maximum", "minimum"):
            bound = array_of(value.args[1])
            if bound is None or bound.size != 1:
                return None
            number = float(bound.reshape(-1)[0])
            return (Clip(low=number, high=None) if name == "maximum" else Clip(low=None, high=number)), None
        if name not in ("add", "multiply") or static_shape(value) != static_shape(before):
            return None
        left, right = value.args
        other = right if left.same_as(before) else left
        constants = array_of(other)
        if constants is not None:
            if constants.size not in (1, output.channels) or constants.shape[-1:] not in ((1,), (output.channels,), ()):
                return None
            by_channel = np.ascontiguousarray(np.broadcast_to(constants.reshape(-1), (output.channels,)))
            return (Bias() if name == "add" else Scale()), by_channel
        if name != "add" or not isinstance(other, relax.Var) or static_shape(other) != static_shape(value):
            return None
        if other.same_as(before):
            return None
        return Residual(is_chain_input=other.same_as(source)), other


def _anchor(value: relax.Expr) -> tuple[Kind, Window, Window, Picture, Array | None] | None:
    """Kind, windows, output and weights of an operator that can be a stage."""
    name, output = op_name(value), picture_of(value)
    if output is None or name not in ("nn.conv2d", "nn.max_pool2d", "nn.avg_pool2d"):
        return None
    source = picture_of(value.args[0])
    if source is None:
        return None
    strides, dilation, padding = (integers(getattr(value.attrs, key)) for key in ("strides", "dilation", "padding"))
    if name == "nn.conv2d":
        weights, groups = array_of(value.args[1]), int(value.attrs.groups)
        if weights is None or value.attrs.data_layout != "NHWC" or value.attrs.kernel_layout != "HWIO":
            return None
        kernel = list(weights.shape[:2])
        if groups == 1:
            kind = Kind.CONVOLUTION
        elif groups == source.channels == output.channels:
            kind, weights = Kind.DEPTHWISE, np.ascontiguousarray(weights.reshape(*kernel, output.channels))
        else:
            return None
    else:
        if value.attrs.layout != "NHWC" or value.attrs.ceil_mode:
            return None
        kernel, weights = integers(value.attrs.pool_size), None
        kind = Kind.MAX_POOL if name == "nn.max_pool2d" else Kind.AVERAGE_POOL
        if kind is Kind.AVERAGE_POOL and any(padding) and not value.attrs.count_include_pad:
            return None
    windows = [
        Window(kernel=kernel[axis], stride=strides[axis], dilation=dilation[axis], before=padding[axis])
        for axis in (0, 1)
    ]
    return kind, windows[0], windows[1], output, weights


def picture_of(expression: relax.Expr) -> Picture | None:
    """Rows, columns and channels of a float32 tensor of batch one, None for all others."""
    shape = static_shape(expression)
    if shape is None or len(shape) != 4 or shape[0] != 1 or dtype_of(expression) != "float32":
        return None
    return Picture(rows=shape[1], columns=shape[2], channels=shape[3])
