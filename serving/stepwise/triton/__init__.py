"""The Python models of a pipeline, and the only folder that knows Triton's Python API."""

from pipelines.triton.decode import Decode
from pipelines.triton.denoise import Denoise
from pipelines.triton.encode import Encode
from pipelines.triton.prepare import Prepare

__all__ = ["Decode", "Denoise", "Encode", "Prepare"]
