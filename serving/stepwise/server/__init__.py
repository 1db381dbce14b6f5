"""Starts Triton Inference Server on a model repository and monitors it."""
