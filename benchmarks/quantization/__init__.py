"""Compares MixDQ and stock tools on SDXL-Turbo's UNet: size, speed and picture quality."""
