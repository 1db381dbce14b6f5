"""Samplers as tables, noise levels, and noise. No torch."""
