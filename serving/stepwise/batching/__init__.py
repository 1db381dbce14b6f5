"""Batching at every denoising step. Independent of Triton: the caller passes ``predict``."""
