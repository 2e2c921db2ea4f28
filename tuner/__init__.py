"""Tessera's tuner: turns an ONNX model into a verified, tuned bundle. A library: no web, no SQL."""
