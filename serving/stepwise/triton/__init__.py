"""The Python models of a pipeline, and the only folder that knows Triton's Python API."""
