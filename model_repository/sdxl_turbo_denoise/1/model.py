"""Denoises all requests together, one batch a step."""

from stepwise.triton.denoise import Denoise as TritonPythonModel  # noqa: F401
