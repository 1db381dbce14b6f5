"""Builds TensorRT engines from graphs."""
