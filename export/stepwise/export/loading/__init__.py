"""Loads a checkpoint's components as torch modules."""
