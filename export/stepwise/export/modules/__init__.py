"""Wraps checkpoints' torch modules to have the inputs and outputs of the graphs."""
