"""Batching at every denoising step. Knows nothing of Triton: it is given ``predict``."""
