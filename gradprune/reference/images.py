"""Images under affine maps, for augmentation.

Shapes: (n, channels, height, width).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats


def warp(images: Floats, maps: NDArray[np.float64]) -> Floats:
    """Pixel (y, x) from row ``m0 y + m1 x + m2``, column ``m3 y + m4 x + m5``; bilinear.

    A place between four pixels is their mean, each weighted by (1 - distance down) times
    (1 - distance across); around the image all is 0.

    Args:
        images: (n, channels, height, width), any floats.
        maps: (n, 6), one map for all channels of a sample.

    Returns:
        Images of the same shape and type.

    Example:
        >>> warp(np.array([[[[1.0, 2.0, 4.0]]]]), np.array([[1, 0, 0, 0, 1, 0.5]]))
        array([[[[1.5, 3. , 2. ]]]])
    """
    _, channels, height, width = images.shape
    y, x = np.mgrid[:height, :width]
    out = np.zeros_like(images)
    for i, m in enumerate(maps):
        row, column = m[0] * y + m[1] * x + m[2], m[3] * y + m[4] * x + m[5]
        for source_y in range(height):
            for source_x in range(width):
                down, across = np.abs(row - source_y), np.abs(column - source_x)
                weight = np.maximum(1 - down, 0) * np.maximum(1 - across, 0)
                for channel in range(channels):
                    out[i, channel] += weight * images[i, channel, source_y, source_x]
    return out
