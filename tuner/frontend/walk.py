"""Walking an ONNX model at every depth: subgraphs of If, Loop and Scan, and model-local functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import onnx

# Two names of one domain.
ONNX_DOMAINS = ("", "ai.onnx")


def all_nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    """Every node of the main graph, of all subgraphs and of the model's own functions."""
    yield from nodes_of(model.graph.node)
    for function in model.functions:
        yield from nodes_of(function.node)


def nodes_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """The nodes given and everything below them."""
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from nodes_of(graph.node)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node carries as attributes (branches and bodies), not deeper."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def all_graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The main graph and every subgraph."""
    yield model.graph
    for node in all_nodes(model):
        yield from subgraphs(node)


def outer_values(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads: its inputs, and what its subgraphs take from the graph around them."""
    used = {name for name in node.input if name}
    for graph in subgraphs(node):
        inner = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        needed: set[str] = {value.name for value in graph.output}
        for child in graph.node:
            needed |= outer_values(child)
            inner |= set(child.output)
        used |= needed - inner
    return used
