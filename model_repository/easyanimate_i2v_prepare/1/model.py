"""Checks requests and turns their prompts into token ids."""

from pipelines.triton import Prepare as TritonPythonModel  # noqa: F401
