"""Benchmarks that measure both sides of each claim about speed in one run."""

import os

# Before any of them loads ONNX Runtime by itself: see imgsearch/encoders/onnx/sessions.py.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
