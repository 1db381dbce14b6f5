"""Measures exports of full-size checkpoints: ``python -m benchmarks.full_size``."""
