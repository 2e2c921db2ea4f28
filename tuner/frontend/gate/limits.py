"""The most that a model may have of everything, with the reason of each figure.

They are far above what networks have, and far below what could hurt: a service that is asked for more than this is
attacked, or used for something that it is not made for. What depends on the machine is no constant: see `footprint`.
"""

from __future__ import annotations

from tuner.errors import ModelError

# Messages of the parsed file. A network of 50,000 operators with every shape annotated has about a million; a walk over
# two million takes about three seconds.
MAX_MESSAGES = 2_000_000
# Operators at all depths, calls of functions counted as what they stand for. Exports of large language models have
# about 20,000; half of them are shape arithmetic, which is folded.
MAX_NODES = 50_000
# Operators that are left when constants are folded. LLVM takes about 15 ms for each (ResNet-50: 415 operators in
# 5.4 s), and a tuned one is at most about 16 KiB of code: four minutes and 256 MiB.
MAX_CODE_BYTES = 256 * 1024**2
CODE_BYTES_PER_OPERATOR = 16 * 1024
# Branches in loops in branches: exporters reach four or five. Protobuf's own parser ends at about 33.
MAX_NESTING = 16
# Attention over windows takes eight; NumPy ends at 64.
MAX_RANK = 16
# What a signed 32-bit index reaches: generated code uses such indices.
MAX_ELEMENTS = 2**31 - 1
# Inputs and outputs of one operator, and of a graph. DenseNet joins 60 tensors; language models have a few hundred
# inputs for their caches. A join of more becomes an expression as deep.
MAX_OPERANDS = 1024
# Numbers of one attribute (axes, pads, a small constant); weights are tensors.
MAX_ATTRIBUTE_NUMBERS = 65_536
# Bytes of one name, and of one text among the attributes. PyTorch names values by their path of modules, some hundred
# bytes.
MAX_NAME_BYTES = 4096
MAX_TEXT_BYTES = 65_536
# Bytes of constants, as a file has them and as folding makes them. A protobuf message, and so a file without external
# data, holds at most 2 GiB. `ConstantOfShape`, `Expand`, `Tile`, `Range`, `Resize` ask for any size in a few bytes.
MAX_CONSTANT_BYTES = 2 * 1024**3 - 2**20
# Values that shape inference may compute with, about 140 bytes each; above, shapes are inferred without them.
MAX_PROPAGATED_VALUES = 2**20
# Work of folding: about a minute on one core.
MAX_FOLDING_FLOPS = 1e12
# What any reader of JSON takes as a whole number; a product of sizes may have hundreds of digits.
_MOST_TOLD = 2**53 - 1


class TooComplex(ModelError):
    """The model has more of something than any network; ``details`` has ``limit``, ``found`` and ``allowed``."""

    code = "model_too_complex"
    hint = "Simplify the model, for example with onnxsim, or cut it into parts. The limits are in docs/security.md."


def require_count(what: str, found: int, allowed: int, *, limit: str, code: str = TooComplex.code) -> None:
    """Raise `TooComplex` when there is more of it; ``limit`` names the constant for programs."""
    if found > allowed:
        told = min(found, _MOST_TOLD)
        raise TooComplex(
            f"The model has too many {what}: {told}, where at most {allowed} are taken.",
            code=code,
            details={"limit": limit, "found": told, "allowed": allowed},
        )
