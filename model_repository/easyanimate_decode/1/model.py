"""Decodes latents to pictures and passes progress on."""

from pipelines.triton import Decode as TritonPythonModel  # noqa: F401
