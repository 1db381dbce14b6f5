"""Measures latency, batching and picture quality; side by side in one run, as ratios."""
