"""Chooses the bits of each layer."""
