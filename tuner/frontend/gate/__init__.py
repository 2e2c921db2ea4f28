"""The gate: what a stranger's model may ask for, decided before anything heavy looks at it.

`admit` looks at a parsed file; `require_axes`, `require_shapes`, `require_constants` and `FoldingBudget` at shapes
before anything of them is allocated; `propagated_values` at what inferring them costs; `require_footprint` at what the
network would need. All of it is arithmetic over the ONNX graph: TVM is not involved, and every refusal is a
`ModelError` whose hint says what to do.
"""

from tuner.frontend.gate.admission import admit
from tuner.frontend.gate.footprint import require_footprint
from tuner.frontend.gate.growth import FoldingBudget, require_constants
from tuner.frontend.gate.propagation import propagated_values
from tuner.frontend.gate.shapes import require_axes, require_elements, require_shapes

__all__ = [
    "FoldingBudget",
    "admit",
    "propagated_values",
    "require_axes",
    "require_constants",
    "require_elements",
    "require_footprint",
    "require_shapes",
]
