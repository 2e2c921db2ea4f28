"""ONNX → Relax: loading, checking, binding shapes, folding, importing. Everything that can go wrong has a code."""
