"""Chains and their windows in plain values, for people who look at them."""

from __future__ import annotations

from schedules.windows.lower import computed_macs, ring_sizes
from schedules.windows.rows import RowPlan
from schedules.windows.stages import Chain


def described(chain: Chain, plan: RowPlan) -> dict[str, object]:
    """A chain computed by a plan: what every operator writes (rows, columns, channels), and how many rows of it a ring
    of each strip keeps; rings are in bytes for all strips together, as wide as one of the ``tiles``. The last operator
    writes the whole output.

    ``macs`` are the multiplications of the chain, ``computed_macs`` those that the plan does.
    """
    last = (1, 4 * chain.output.channels) if chain.averages else (None, None)
    kept = [*zip((ring.rows for ring in plan.rings), ring_sizes(chain, plan), strict=True), last]
    operators = [
        {
            "operator": str(stage.kind),
            "kernel": [stage.down.kernel, stage.across.kernel],
            "stride": stage.down.stride,
            "output": [stage.output.rows, stage.output.columns, stage.output.channels],
            "ring_rows": rows,
            "ring_bytes": size_bytes,
        }
        for stage, (rows, size_bytes) in zip(chain.stages, kept, strict=True)
    ]
    if chain.averages:  # row by row, as they come
        operators.append(
            {
                "operator": "mean",
                "kernel": [chain.output.rows, chain.output.columns],
                "stride": 1,
                "output": [1, 1, chain.output.channels],
                "ring_rows": None,
                "ring_bytes": None,
            }
        )
    macs = sum(
        stage.macs(chain.read_by(index).channels) * stage.output.rows * stage.output.columns
        for index, stage in enumerate(chain.stages)
    )
    return {
        "source": [chain.source.rows, chain.source.columns, chain.source.channels],
        "operators": operators,
        "strips": plan.strips,
        "tiles": plan.tiles,
        "rows_per_step": plan.rows_per_step,
        "macs": macs,
        "computed_macs": computed_macs(chain, plan),
    }
