"""Torch modules with the inputs and outputs that the graphs have, around those of checkpoints."""
