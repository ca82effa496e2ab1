"""Models run by ONNX Runtime on the CPU."""
