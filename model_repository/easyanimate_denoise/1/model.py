"""Denoises all requests together, one batch a step."""

from pipelines.triton import Denoise as TritonPythonModel  # noqa: F401
