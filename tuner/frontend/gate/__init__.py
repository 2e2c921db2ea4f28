"""The gate: what a stranger's model may ask for, decided before anything heavy looks at it.

`admit` looks at a parsed file; `require_axes` and `require_propagation` at what shape inference would compute; `require_shapes`,
`require_constants` and `FoldingBudget` at inferred shapes, before anything of them is allocated; `require_footprint` at
what the network would need. All of it is arithmetic over the ONNX graph: TVM is not involved, and every refusal is a
`ModelError` whose hint says what to do.
"""

from tuner.frontend.gate.admission import admit
from tuner.frontend.gate.footprint import require_footprint
from tuner.frontend.gate.growth import FoldingBudget, require_constants
from tuner.frontend.gate.propagation import require_propagation
from tuner.frontend.gate.shapes import require_axes, require_elements, require_shapes

__all__ = [
    "FoldingBudget",
    "admit",
    "require_axes",
    "require_constants",
    "require_elements",
    "require_footprint",
    "require_propagation",
    "require_shapes",
]
