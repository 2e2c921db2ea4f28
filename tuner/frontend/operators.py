"""Which operators a model uses, and which of them the TVM frontend cannot import."""

from __future__ import annotations

from collections import Counter

import onnx

from tuner.errors import UnsupportedOperators
from tuner.frontend.walk import ONNX_DOMAINS, all_nodes

# The frontend ignores domains; these of its converters implement ONNX Runtime's operators, not ONNX's.
# fmt: off
_MICROSOFT_ONLY = frozenset({
    "Attention", "BiasGelu", "EmbedLayerNormalization", "FastGelu", "MatMulInteger16", "SkipLayerNormalization",
})
# fmt: on
_MICROSOFT = _MICROSOFT_ONLY | {"Gelu"}
# How many of those that cannot be imported are named in the message, and in its details; and how much of a name.
_NAMED, _LISTED, _NAME_SHOWN = 40, 500, 200
# Handled by the importer itself, without a converter.
_BUILT_IN = frozenset({"If", "Constant"})


def count_operators(model: onnx.ModelProto) -> dict[str, int]:
    """How often each operator occurs, subgraphs included, most frequent first; other domains as ``domain::Name``."""
    counts = Counter(
        node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}::{node.op_type}" for node in all_nodes(model)
    )
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def refuse_unsupported(operators: dict[str, int]) -> None:
    """Raise `UnsupportedOperators` naming those that cannot be imported, with their counts (the first 500)."""
    unsupported = {name: count for name, count in operators.items() if not _is_supported(name)}
    if unsupported:
        shown = [f"{name[:_NAME_SHOWN]} (×{count})" for name, count in unsupported.items()]
        raise UnsupportedOperators(
            f"The model uses {len(unsupported)} operators that cannot be imported: {', '.join(shown[:_NAMED])}"
            f"{', …' if len(shown) > _NAMED else ''}.",
            details={"operators": {name[:_NAME_SHOWN]: unsupported[name] for name in list(unsupported)[:_LISTED]}},
        )


def oldest_converter_version(name: str) -> int | None:
    """The opset of the oldest converter that the frontend has for an ONNX operator; None when it has none."""
    converter = _converters().get(name)
    if converter is None:
        return None
    versions = [int(part.removeprefix("_impl_v")) for part in dir(converter) if part.startswith("_impl_v")]
    return min(versions, default=None)


def _is_supported(name: str) -> bool:
    domain, _, operator = name.rpartition("::")
    if not domain:
        return operator in _BUILT_IN or (operator in _converters() and operator not in _MICROSOFT_ONLY)
    return domain == "com.microsoft" and operator in _MICROSOFT and operator in _converters()


def _converters() -> dict[str, type]:
    # The only list of what the frontend can import is this private map; a test holds it to the installed TVM.
    from tvm.relax.frontend.onnx import onnx_frontend

    converters: dict[str, type] = onnx_frontend._get_convert_map()
    return converters
