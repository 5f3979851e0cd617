"""The compiled loop of depth registration. One thread: it runs beside the engine's parallel loops."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def splat_nearest(columns, rows, z, values, height, width):
    """An image (height, width) of `values` at pixels (columns, rows), all (N,) float32; the smallest z wins."""
    image = np.zeros((height, width), np.float32)
    nearest = np.full((height, width), np.inf, np.float32)
    for i in range(len(z)):
        u, v = columns[i] + np.float32(0.5), rows[i] + np.float32(0.5)
        if not (u >= 0 and v >= 0 and u < width and v < height):
            continue
        column, row = int(u), int(v)
        if z[i] < nearest[row, column]:
            nearest[row, column] = z[i]
            image[row, column] = values[i]
    return image
