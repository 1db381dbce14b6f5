"""The Python models of a pipeline. Only this folder uses Triton's Python API."""
