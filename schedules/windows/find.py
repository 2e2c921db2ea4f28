"""Finding chains of windowed operators in a prepared network (NHWC)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
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
    """A stage where it stands in a network: the variables it binds, the last one its output, and its parameters in the
    order of `schedules.windows.lower.parameters_of`: constants, and variables of tensors that are added."""

    stage: Stage
    variables: tuple[relax.Var, ...]
    arguments: tuple[Array | relax.Var, ...]

    @property
    def output(self) -> relax.Var:
        return self.variables[-1]


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundChain:
    """Neighbouring stages, each read by the next one only, and the variable that the first one reads."""

    source: relax.Var
    stages: tuple[Found, ...]

    @property
    def chain(self) -> Chain:
        """The chain to be lowered: a first stage with padding reads a copy of the input that has it."""
        picture = _picture(self.source)
        assert picture is not None
        stages = tuple(found.stage for found in self.stages)
        if reads_padding(stages[0], picture):
            once = Window(kernel=1)
            stages = (Stage(kind=Kind.COPY, down=once, across=once, output=picture), *stages)
        return Chain(source=picture, stages=stages)


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
        taken |= {each for found in stages for each in found.variables}
        if len(stages) > 1 and source is not None:
            chains.append(FoundChain(source=source, stages=tuple(stages)))
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

    def only_reader(self, variable: relax.Var) -> relax.Var | None:
        readers = self._readers[variable]
        return readers[0] if len(readers) == 1 and variable not in self._returned else None

    def stage(self, variable: relax.Var, source: relax.Var) -> Found | None:
        """The stage that begins with this binding, with as much of what follows as its epilogue can take."""
        anchor = _anchor(self.definitions[variable])
        if anchor is None:
            return None
        kind, down, across, output, weights = anchor
        variables, epilogue = [variable], list[Step]()
        arguments: list[Array | relax.Var] = [] if weights is None else [weights]
        while (following := self.only_reader(variables[-1])) is not None:
            step = self._step(following, variables[-1], source, output)
            if step is None:
                break
            epilogue.append(step[0])
            arguments += step[1]
            variables.append(following)
        stage = Stage(kind=kind, down=down, across=across, output=output, epilogue=tuple(epilogue))
        return Found(stage=stage, variables=tuple(variables), arguments=tuple(arguments))

    def _step(
        self, variable: relax.Var, before: relax.Var, source: relax.Var, output: Picture
    ) -> tuple[Step, list[Array | relax.Var]] | None:
        value = self.definitions[variable]
        name = op_name(value)
        if name == "nn.relu":
            return Clip(low=0.0, high=None), []
        if name in ("maximum", "minimum"):
            bound = array_of(value.args[1])
            if bound is None or bound.size != 1:
                return None
            number = float(bound.reshape(-1)[0])
            return (Clip(low=number, high=None) if name == "maximum" else Clip(low=None, high=number)), []
        if name not in ("add", "multiply") or static_shape(value) != static_shape(before):
            return None
        left, right = value.args
        other = right if left.same_as(before) else left
        constants = array_of(other)
        if constants is not None:
            if constants.size not in (1, output.channels) or constants.shape[-1:] not in ((1,), (output.channels,), ()):
                return None
            by_channel = np.ascontiguousarray(np.broadcast_to(constants.reshape(-1), (output.channels,)))
            return (Bias() if name == "add" else Scale()), [by_channel]
        if name != "add" or not isinstance(other, relax.Var) or static_shape(other) != static_shape(value):
            return None
        if other.same_as(before):
            return None
        is_chain_input = other.same_as(source)
        return Residual(is_chain_input=is_chain_input), [] if is_chain_input else [other]


def _anchor(value: relax.Expr) -> tuple[Kind, Window, Window, Picture, Array | None] | None:
    """Kind, windows, output and weights of an operator that can be a stage."""
    name, output = op_name(value), _picture(value)
    if output is None or name not in ("nn.conv2d", "nn.max_pool2d", "nn.avg_pool2d"):
        return None
    source = _picture(value.args[0])
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


def _picture(expression: relax.Expr) -> Picture | None:
    shape = static_shape(expression)
    if shape is None or len(shape) != 4 or shape[0] != 1 or dtype_of(expression) != "float32":
        return None
    return Picture(rows=shape[1], columns=shape[2], channels=shape[3])
