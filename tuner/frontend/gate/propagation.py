"""What it would cost to let shape inference compute with values.

ONNX propagates the contents of every vector through some operators, whatever its length and known or not, at about 140
bytes an element and operator: one that is joined with itself forty times would be a hundred terabytes.
"""

from __future__ import annotations

from math import prod

import onnx
from onnx import defs

from tuner.frontend.walk import all_graphs

_PROPAGATING = frozenset(
    schema.name for schema in defs.get_all_schemas_with_history() if schema.has_data_propagation_function
)


def propagated_values(inferred: onnx.ModelProto) -> int:
    """How many values it would hold, as far as shapes are known without them."""
    total = 0
    for graph in all_graphs(inferred):
        vectors = {
            value.name: prod(size.dim_value for size in value.type.tensor_type.shape.dim)
            for value in (*graph.value_info, *graph.output)
            if len(value.type.tensor_type.shape.dim) == 1
        }
        total += sum(
            vectors.get(name, 0) for node in graph.node if node.op_type in _PROPAGATING for name in node.output
        )
    return total
