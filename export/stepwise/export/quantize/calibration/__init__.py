"""Measures the inputs and outputs of a UNet's layers."""
