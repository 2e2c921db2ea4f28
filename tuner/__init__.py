"""Tessera's tuner: turns an ONNX model into a verified, tuned bundle. A library: no web, no SQL."""

import os

# ONNX Runtime sends usage data by default, from its import on (Privacy.md in its wheel). Nothing leaves this machine.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
