"""How each operator is computed channels-last. What has no rule here gets its inputs in NCHW."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tvm import relax

from schedules.graph.rewrite import Walk, array_of, constant, integers, op_name, static_shape

_MOVED = {0: 0, 1: 3, 2: 1, 3: 2}
"""Where an NCHW axis lies in NHWC."""


@dataclass(frozen=True, kw_only=True)
class Channels:
    """What a rule may ask: whether an old tensor exists channels-last, and for that form of it."""

    walk: Walk
    is_last: Callable[[relax.Expr], bool]
    last: Callable[[relax.Expr], relax.Expr]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A new expression; ``is_channels_last`` says whether it stands for the old tensor transposed or as it was."""

    value: relax.Expr
    is_channels_last: bool = True


Rule = Callable[[Channels, relax.Expr], Answer | None]


def _elementwise(channels: Channels, call: relax.Expr) -> Answer | None:
    """Operators without an axis, broadcasting: constants are transposed, tensors of lower rank end the layout."""
    tensors = [argument for argument in call.args if isinstance(argument.ty, relax.TensorType)]
    if not any(channels.is_last(tensor) for tensor in tensors):
        return None
    arguments = []
    for argument in call.args:
        values = array_of(argument)
        if not isinstance(argument.ty, relax.TensorType) or argument.ty.ndim == 0:
            arguments.append(channels.walk.new(argument))
        elif argument.ty.ndim == 4:
            arguments.append(channels.last(argument))
        elif values is not None and values.ndim < 4:
            widened = values.reshape((1,) * (4 - values.ndim) + values.shape)
            arguments.append(constant(widened.transpose(0, 2, 3, 1)))
        else:
            return None
    return Answer(value=relax.Call(call.op, arguments, call.attrs, call.ty_args))


def _pool(channels: Channels, call: relax.Expr) -> Answer | None:
    if not channels.is_last(call.args[0]) or call.attrs.layout != "NCHW":
        return None
    pool = {"nn.max_pool2d": relax.op.nn.max_pool2d, "nn.avg_pool2d": relax.op.nn.avg_pool2d}[op_name(call)]
    return Answer(
        value=pool(
            channels.last(call.args[0]),
            pool_size=integers(call.attrs.pool_size),
            strides=integers(call.attrs.strides),
            padding=integers(call.attrs.padding),
            dilation=integers(call.attrs.dilation),
            ceil_mode=bool(call.attrs.ceil_mode),
            count_include_pad=bool(call.attrs.count_include_pad),
            layout="NHWC",
        )
    )


def _adaptive_pool(channels: Channels, call: relax.Expr) -> Answer | None:
    if not channels.is_last(call.args[0]) or call.attrs.layout != "NCHW":
        return None
    size = call.attrs.output_size
    pooled = relax.op.nn.adaptive_avg_pool2d(
        channels.last(call.args[0]), output_size=None if size is None else integers(size), layout="NHWC"
    )
    return Answer(value=pooled)


def _concat(channels: Channels, call: relax.Expr) -> Answer | None:
    parts = list(call.args[0].fields) if isinstance(call.args[0], relax.Tuple) else []
    if not any(channels.is_last(part) for part in parts):
        return None
    axis = _MOVED[int(call.attrs.axis or 0) % 4]
    return Answer(value=relax.op.concat([channels.last(part) for part in parts], axis=axis))


def _reduction(channels: Channels, call: relax.Expr) -> Answer | None:
    """With its dimensions kept a reduction stays channels-last; without, if the axes left over keep their order."""
    if not channels.is_last(call.args[0]):
        return None
    axes = list(range(4)) if call.attrs.axis is None else [axis % 4 for axis in integers(call.attrs.axis)]
    left = [_MOVED[axis] for axis in range(4) if axis not in axes]
    if not call.attrs.keepdims and left != sorted(left):
        return None
    reduce = getattr(relax.op, op_name(call))
    kept = bool(call.attrs.keepdims)
    reduced = reduce(channels.last(call.args[0]), axis=[_MOVED[axis] for axis in axes], keepdims=kept)
    return Answer(value=reduced, is_channels_last=kept)


def _softmax(channels: Channels, call: relax.Expr) -> Answer | None:
    if not channels.is_last(call.args[0]):
        return None
    softmax = {"nn.softmax": relax.op.nn.softmax, "nn.log_softmax": relax.op.nn.log_softmax}[op_name(call)]
    return Answer(value=softmax(channels.last(call.args[0]), axis=_MOVED[int(call.attrs.axis) % 4]))


def _prelu(channels: Channels, call: relax.Expr) -> Answer | None:
    if not channels.is_last(call.args[0]):
        return None
    slope = channels.walk.new(call.args[1])
    return Answer(value=relax.op.nn.prelu(channels.last(call.args[0]), slope, axis=_MOVED[int(call.attrs.axis) % 4]))


def _pad(channels: Channels, call: relax.Expr) -> Answer | None:
    if not channels.is_last(call.args[0]):
        return None
    before_after = integers(call.attrs.pad_width)
    widths = [width for axis in (0, 2, 3, 1) for width in before_after[2 * axis : 2 * axis + 2]]
    padded = relax.op.nn.pad(channels.last(call.args[0]), widths, str(call.attrs.pad_mode), float(call.attrs.pad_value))
    return Answer(value=padded)


def _resize(channels: Channels, call: relax.Expr) -> Answer | None:
    if not channels.is_last(call.args[0]) or call.attrs.layout != "NCHW":
        return None
    resized = relax.op.image.resize2d(
        channels.last(call.args[0]),
        channels.walk.new(call.args[1]),
        roi=[float(value) for value in call.attrs.roi],
        layout="NHWC",
        method=str(call.attrs.method),
        coordinate_transformation_mode=str(call.attrs.coordinate_transformation_mode),
        rounding_method=str(call.attrs.rounding_method),
        cubic_alpha=float(call.attrs.cubic_alpha),
        cubic_exclude=int(call.attrs.cubic_exclude),
        extrapolation_value=float(call.attrs.extrapolation_value),
        out_dtype=call.attrs.out_dtype or None,
    )
    return Answer(value=resized)


def _reshape(channels: Channels, call: relax.Expr) -> Answer | None:
    """Flattening after global pooling needs no transpose; neither does a channel shuffle."""
    tensor = call.args[0]
    shape, result = static_shape(tensor), static_shape(call)
    if channels.is_last(tensor) and shape is not None and result is not None and shape[2:] == (1, 1):
        return Answer(value=relax.op.reshape(channels.last(tensor), list(result)), is_channels_last=False)
    return _channel_shuffle(channels, call)


def _channel_shuffle(channels: Channels, call: relax.Expr) -> Answer | None:
    """``[N, G, K, H, W] → [N, K, G, H, W]`` between two reshapes, on the last axis instead of the second."""
    swap = channels.walk.definition(call.args[0])
    if swap is None or op_name(swap) != "permute_dims" or swap.attrs.axes is None:
        return None
    split = channels.walk.definition(swap.args[0])
    if split is None or op_name(split) != "reshape" or integers(swap.attrs.axes) != [0, 2, 1, 3, 4]:
        return None
    source = split.args[0]
    before, parts, after = static_shape(source), static_shape(split), static_shape(call)
    if not channels.is_last(source) or before is None or parts is None or before != after:
        return None
    batch, groups, members, height, width = parts
    if (batch, groups * members, height, width) != before:
        return None
    walk = channels.walk
    grouped = walk.emit(relax.op.reshape(channels.last(source), [batch, height, width, groups, members]))
    swapped = walk.emit(relax.op.permute_dims(grouped, [0, 1, 2, 4, 3]))
    return Answer(value=relax.op.reshape(swapped, [batch, height, width, groups * members]))


def _squeeze(channels: Channels, call: relax.Expr) -> Answer | None:
    """The window over channels of local response normalization: a 3-D pool of which the depth is the channel."""
    shape = static_shape(call.args[0])
    if channels.is_last(call.args[0]) and shape is not None and shape[2:] == (1, 1):
        result = static_shape(call)
        return Answer(value=relax.op.reshape(channels.last(call.args[0]), list(result or ())), is_channels_last=False)
    pool = channels.walk.definition(call.args[0])
    if pool is None or op_name(pool) != "nn.avg_pool3d" or call.attrs.axis is None or integers(call.attrs.axis) != [1]:
        return None
    expand = channels.walk.definition(pool.args[0])
    if expand is None or op_name(expand) != "expand_dims" or integers(expand.attrs.axis) != [1]:
        return None
    source, attributes = expand.args[0], pool.attrs
    if not channels.is_last(source) or attributes.layout != "NCDHW":
        return None
    walk = channels.walk
    expanded = walk.emit(relax.op.expand_dims(channels.last(source), [1]))
    begin, end = integers(attributes.padding)[:3], integers(attributes.padding)[3:]
    pooled = walk.emit(
        relax.op.nn.avg_pool3d(
            expanded,
            pool_size=_depth_last(integers(attributes.pool_size)),
            strides=_depth_last(integers(attributes.strides)),
            dilation=_depth_last(integers(attributes.dilation)),
            padding=[*_depth_last(begin), *_depth_last(end)],
            ceil_mode=bool(attributes.ceil_mode),
            count_include_pad=bool(attributes.count_include_pad),
            layout="NCDHW",
        )
    )
    return Answer(value=relax.op.squeeze(pooled, [1]))


def _depth_last(values: list[int]) -> list[int]:
    return [values[1], values[2], values[0]]


_UNARY = """
    abs acos acosh asin asinh astype atan atanh bitwise_not ceil clip cos cosh erf exp floor isfinite isinf isnan log
    logical_not negative nn.gelu nn.gelu_tanh nn.leakyrelu nn.relu nn.relu6 nn.selu nn.silu nn.softplus round rsqrt
    sigmoid sign sin sinh sqrt square tan tanh trunc
"""
_BROADCAST = """
    add divide equal floor_divide floor_mod greater greater_equal less less_equal logical_and logical_or logical_xor
    maximum minimum mod multiply not_equal power subtract where
"""

RULES: Mapping[str, Rule] = {
    **dict.fromkeys((_UNARY + _BROADCAST).split(), _elementwise),
    **dict.fromkeys(("nn.max_pool2d", "nn.avg_pool2d"), _pool),
    **dict.fromkeys(("mean", "sum", "max", "min", "prod", "variance"), _reduction),
    **dict.fromkeys(("nn.softmax", "nn.log_softmax"), _softmax),
    "nn.adaptive_avg_pool2d": _adaptive_pool,
    "nn.prelu": _prelu,
    "nn.pad": _pad,
    "image.resize2d": _resize,
    "concat": _concat,
    "reshape": _reshape,
    "flatten": _reshape,
    "squeeze": _squeeze,
}
