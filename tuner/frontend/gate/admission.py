"""Whether a parsed file may be looked at any further."""

from __future__ import annotations

import onnx

from tuner.errors import ModelError
from tuner.frontend.gate.contents import require_attributes, require_operands, require_tensors
from tuner.frontend.gate.external_data import refuse_external_data
from tuner.frontend.gate.functions import require_expansion
from tuner.frontend.gate.order import refuse_cycles, refuse_duplicates
from tuner.frontend.gate.parts import parts_of
from tuner.frontend.gate.shapes import require_types


def admit(model: onnx.ModelProto) -> None:
    """Refuse what nothing should work on: no library has seen more of it than protobuf's parser.

    Raises `ModelError` with ``external_data``, ``model_too_complex``, ``duplicate_name``, ``cyclic_graph`` or
    ``model_invalid``.
    """
    try:
        parts = parts_of(model)
        refuse_external_data(parts.tensors)
        require_operands(parts.nodes, parts.graphs)
        require_attributes(parts.attributes)
        require_types(parts.types)
        require_tensors(parts.tensors)
        refuse_duplicates(model, parts.graphs)
        require_expansion(model)
        refuse_cycles(model, parts.graphs)
    except UnicodeDecodeError as error:
        raise ModelError(
            f"A name in the model is no UTF-8 text: {error.reason}.",
            hint="The file is damaged, or was written by a faulty exporter: export the model again.",
        ) from error
