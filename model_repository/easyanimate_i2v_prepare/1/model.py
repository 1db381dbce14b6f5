"""Checks requests and turns their prompts into token ids."""

from stepwise.triton.prepare import Prepare as TritonPythonModel  # noqa: F401
