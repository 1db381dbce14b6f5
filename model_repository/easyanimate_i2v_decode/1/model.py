"""Decodes latents to pictures and passes progress on."""

from stepwise.triton.decode import Decode as TritonPythonModel  # noqa: F401
