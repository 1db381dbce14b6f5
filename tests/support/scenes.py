"""The video that ``mock_events`` returns; its model contains the source of ``scene``."""

import numpy as np


def scene(frames, height, width, seed):
    """A video of smooth moving colours, uint8 (frames, height, width, 3)."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    times = np.arange(frames) / 16 + seed
    colours = [(np.sin(6 * x + t), np.cos(5 * y - t), np.sin(3 * (x + y) + t)) for t in times]
    return (127.5 + 127 * np.moveaxis(np.asarray(colours), 1, -1)).round().astype(np.uint8)
