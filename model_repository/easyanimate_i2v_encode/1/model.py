"""Encodes the images that a clip continues."""

from pipelines.triton import Encode as TritonPythonModel  # noqa: F401
