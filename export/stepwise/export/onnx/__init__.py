"""Torch modules to ONNX graphs, and both compared."""
