"""Encodes and decodes videos with a causal autoencoder, slice by slice."""
