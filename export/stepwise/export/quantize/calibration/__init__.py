"""What a UNet's layers are given, measured."""
