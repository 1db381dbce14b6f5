"""Starts Triton Inference Server on a model repository and keeps an eye on it."""
