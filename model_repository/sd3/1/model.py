"""Serves a pipeline: requests in, pictures or videos out."""

from stepwise.triton.pipeline import Pipeline as TritonPythonModel  # noqa: F401
