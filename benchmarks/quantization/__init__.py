"""What quantizing the UNet of SDXL-Turbo costs and gains, by MixDQ and by stock tools."""
