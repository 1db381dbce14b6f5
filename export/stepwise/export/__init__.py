"""Exports diffusion checkpoints to the graphs of a Triton model repository."""
