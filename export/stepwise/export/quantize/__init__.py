"""MixDQ (arXiv 2405.17873): a bit-width for each layer of a few-step UNet, and the graphs of it."""
