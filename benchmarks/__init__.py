"""Measures latency, batching and picture quality, as ratios between variants of one run."""
