"""Whether a parsed file may be looked at any further."""

from __future__ import annotations

import onnx

from tuner.frontend.gate.contents import require_attributes, require_operands, require_tensors
from tuner.frontend.gate.external_data import refuse_external_data
from tuner.frontend.gate.functions import require_expansion
from tuner.frontend.gate.order import refuse_cycles, refuse_duplicates
from tuner.frontend.gate.parts import parts_of
from tuner.frontend.gate.shapes import require_types


def admit(model: onnx.ModelProto) -> None:
    """Refuse what nothing should work on: no library has seen more of it than protobuf's parser.

    Raises `ModelError` with ``external_data``, ``model_too_complex``, ``model_too_large``, ``duplicate_name``,
    ``cyclic_graph`` or ``model_invalid``.
    """
    parts = parts_of(model)
    refuse_external_data(parts.tensors)
    require_operands(parts.nodes, parts.graphs)
    require_attributes(parts.attributes)
    require_types(parts.types)
    require_tensors(parts.tensors)
    refuse_duplicates(model, parts.graphs)
    require_expansion(model)
    refuse_cycles(model, parts.graphs)
