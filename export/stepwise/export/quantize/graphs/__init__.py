"""Quantized graphs for ONNX Runtime and TensorRT."""
