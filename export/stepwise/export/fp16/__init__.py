"""Converts float32 graphs to graphs that compute in float16."""
