"""Exports torch modules to ONNX graphs and compares both."""
