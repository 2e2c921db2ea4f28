"""The part of a network that a change of some of its operators can reach."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from tvm import relax
from tvm.ir import IRModule

from schedules.graph.rewrite import ENTRY, Rule, op_name, rewrite_main, variables_of

_ENDS_FUSION = frozenset({"matmul"} | {f"nn.conv{rank}d{kind}" for rank in (1, 2, 3) for kind in ("", "_transpose")})
"""A function has at most one of these, and nothing beyond it is fused otherwise because of what is before it."""


def rewrite_around(mod: IRModule, changed: Collection[relax.Var], *rules: Rule) -> IRModule:
    """`rewrite_main` of nothing but the bindings ``changed`` of a straight ``main`` and those around them that fusion
    may treat otherwise after the change: what they reach over any edges, up to and with the next convolutions and
    matrix products.

    What the part reads of the rest becomes a parameter, what the rest reads of it a field of the result. Whatever is
    fused otherwise in the network is fused otherwise here; at its edges functions may differ from the network's, but
    not because of the rules.
    """
    function = mod[ENTRY]
    (block,) = function.body.blocks
    reads = {binding.var: variables_of(binding.value) for binding in block.bindings}
    inside = _reached(block, reads, changed)
    read_outside = set(variables_of(function.body.body))
    for variable, read in reads.items():
        if variable not in inside:
            read_outside.update(read)
    bindings = [binding for binding in block.bindings if binding.var in inside]
    parameters = dict.fromkeys(read for each in bindings for read in reads[each.var] if read not in inside)
    results = [binding.var for binding in bindings if binding.var in read_outside]
    body = relax.SeqExpr([relax.DataflowBlock(bindings)], relax.Tuple(results))
    # The same variables as in the network, by which the rules know them: well-formed only when it is rewritten.
    part = relax.Function(list(parameters), body, ret_ty=relax.TupleType([each.ty for each in results]))
    return rewrite_main(IRModule({ENTRY: part}), *rules)


def _reached(
    block: relax.DataflowBlock, reads: dict[relax.Var, list[relax.Var]], changed: Collection[relax.Var]
) -> set[relax.Var]:
    ends = {binding.var for binding in block.bindings if op_name(binding.value) in _ENDS_FUSION}
    neighbours: dict[relax.Var, set[relax.Var]] = defaultdict(set)
    for variable, read in reads.items():
        for other in read:
            if other in reads:
                neighbours[variable].add(other)
                neighbours[other].add(variable)
    reached, pending = set(changed), list(changed)
    while pending:
        for variable in neighbours[pending.pop()] - reached:
            reached.add(variable)
            if variable not in ends:
                pending.append(variable)
    return reached
