"""The graph's way from the importer to the virtual machine, in the one order that is legal."""

from __future__ import annotations

from tvm import relax, transform
from tvm.ir import IRModule
from tvm.target import Target

from schedules.graph.affine import fold_affine
from schedules.graph.block_names import neutral_block_names
from schedules.graph.clip import restore_clip
from schedules.graph.fold import fold_constants
from schedules.graph.grouped import group_convolutions
from schedules.graph.identities import remove_identities
from schedules.graph.layout import channels_last
from schedules.graph.layout_free import mark_layout_free
from schedules.graph.padding import restore_padding
from schedules.graph.powers import expand_powers
from schedules.graph.prepack import fold_prepacking
from schedules.graph.rewrite import ENTRY
from schedules.graph.sblock_attributes import drop_custom_rules
from schedules.graph.vector_math import vectorize_math
from schedules.graph.whole_vectors import fill_vectors
from schedules.memory.allocate import allocate
from schedules.memory.lifetimes import with_allocations

_FLOAT_BITS = 32


def prepare(mod: IRModule) -> IRModule:
    """Simplify an imported module and move it to NHWC; still operators, still the model's signature.

    Constants first, since the other passes look at them; then what the importer wrote in a roundabout way; then scales
    into weights, which expects weights in the importer's layout; the layout last.
    """
    for step in (
        fold_constants,
        restore_clip,
        restore_padding,
        remove_identities,
        expand_powers,
        fold_affine,
        channels_last,
    ):
        mod = step(mod)
    return transform.Sequential(
        [
            relax.transform.CanonicalizeBindings(),
            relax.transform.EliminateCommonSubexpr(),
            relax.transform.DeadCodeElimination([ENTRY]),
        ]
    )(mod)


def fuse(mod: IRModule, target: Target, *, vector_bits: int) -> IRModule:
    """Legalize operators to PrimFuncs, fuse them, and name the weights that a schedule may reorder.

    What is left in ``main`` are calls of PrimFuncs, each distinct one a task. Functions without a vector form, and
    convolutions whose channels do not fill the target's vectors, are replaced first. `AnnotateTIROpPattern` reads
    PrimFuncs, so it comes after `LegalizeOps`; constants are folded before fusion, or their computation would be fused
    in.
    """
    lanes = vector_bits // _FLOAT_BITS
    in_vectors = fill_vectors(group_convolutions(mod, lanes=lanes), lanes=lanes)
    with target:
        mod = transform.Sequential(
            [
                relax.backend.DispatchSampling(),
                relax.backend.DispatchSortScan(),
                relax.transform.DecomposeOpsForInference(),
                relax.transform.CanonicalizeBindings(),
                relax.transform.LegalizeOps(),
            ]
        )(vectorize_math(in_vectors))
        mod = transform.Sequential(
            [
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FoldConstant(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                relax.transform.DeadCodeElimination([ENTRY]),
            ]
        )(neutral_block_names(mod))
    return mark_layout_free(drop_custom_rules(mod))


def prepack(mod: IRModule, target: Target) -> IRModule:
    """After schedules were applied: weights reordered once, here, so that ``main`` keeps the model's signature.

    Before::

        y = call_tir(conv, (x, const))        # conv copies const into its own order on every call

    After::

        y = call_tir(conv, (x, const'))
    """
    with target:
        mod = relax.transform.SplitLayoutRewritePreproc()(mod)
        mod = fold_prepacking(mod)
        return transform.Sequential([relax.transform.FoldConstant(), relax.transform.DeadCodeElimination([ENTRY])])(mod)


def finish(mod: IRModule, target: Target) -> IRModule:
    """Memory planning and lowering to the virtual machine: build the result with ``relax_pipeline=None``.

    The passes of TVM's default pipeline without legalization and fusion, which are done, and must not see a scheduled
    function again.
    """
    with target:
        return transform.Sequential(
            [
                relax.transform.LowerAllocTensor(),
                relax.transform.KillAfterLastUse(),
                relax.transform.LowerRuntimeBuiltin(),
                relax.transform.ComputePrimValue(),
                relax.transform.VMShapeLower(),
                relax.transform.AttachGlobalSymbol(),
            ]
        )(allocate(with_allocations(mod)))
