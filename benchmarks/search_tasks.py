"""The tasks on which searches are compared: fp32, channels last, weights whose layout is free."""

from __future__ import annotations

from typing import Any

QUICK_TASKS = ("conv3x3", "conv1x1", "matmul")
TASKS = (*QUICK_TASKS, "conv3x3_stride2", "stem7x7", "depthwise3x3", "dense", "batch_matmul", "softmax")


def workload(name: str) -> Any:
    """The task's module."""
    import tvm
    from tvm import te

    tensors = _tensors(name)
    function = te.create_prim_func(tensors)
    if name not in ("batch_matmul", "softmax"):  # their inputs are activations
        function = function.with_attr("layout_free_buffers", [1])
    return tvm.IRModule({"main": function})


def _tensors(name: str) -> list[Any]:
    """Inputs and output of the task."""
    from tvm import te, topi

    def tensor(label: str, *shape: int) -> Any:
        return te.placeholder(shape, name=label)

    def convolution(size: int, kernel: int, channels_in: int, channels_out: int, *, stride: int) -> list[Any]:
        data = tensor("data", 1, size, size, channels_in)
        weight = tensor("weight", kernel, kernel, channels_in, channels_out)
        return [data, weight, topi.nn.conv2d_nhwc(data, weight, stride, kernel // 2, 1)]

    match name:
        case "conv3x3":
            return convolution(56, 3, 64, 64, stride=1)
        case "conv3x3_stride2":
            return convolution(56, 3, 64, 128, stride=2)
        case "conv1x1":
            return convolution(28, 1, 256, 128, stride=1)
        case "stem7x7":
            return convolution(224, 7, 3, 64, stride=2)
        case "depthwise3x3":
            data, weight = tensor("data", 1, 56, 56, 96), tensor("weight", 3, 3, 96, 1)
            return [data, weight, topi.nn.depthwise_conv2d_nhwc(data, weight, 1, 1, 1)]
        case "matmul":
            left, right = tensor("data", 256, 256), tensor("weight", 256, 256)
            return [left, right, topi.nn.matmul(left, right)]
        case "dense":
            data, weight = tensor("data", 16, 1024), tensor("weight", 1000, 1024)
            return [data, weight, topi.nn.dense(data, weight)]
        case "batch_matmul":
            left, right = tensor("left", 8, 128, 64), tensor("right", 8, 128, 64)
            return [left, right, topi.nn.batch_matmul(left, right)]
        case "softmax":
            data = tensor("data", 1024, 128)
            return [data, topi.nn.softmax(data)]
    raise SystemExit(f"There is no task named {name!r}. Tasks: {', '.join(TASKS)}")
