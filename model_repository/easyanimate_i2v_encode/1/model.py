"""Encodes prompts, and the images that a video continues."""

from stepwise.triton.encode import Encode as TritonPythonModel  # noqa: F401
