"""MixDQ (arXiv 2405.17873): quantizes a few-step UNet, with a bit-width for each layer."""
