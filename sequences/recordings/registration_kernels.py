"""The compiled loops of depth registration. One thread: they run beside the engine's parallel loops."""

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


@njit(cache=True, nogil=True, error_model="numpy")
def undistorted_disparities(raw, places, noise, none):
    """Disparities (H, W) float64 of raw ones, bilinearly at places (2, H, W), rows and columns; 0 outside.

    `none` wherever a pixel of the value `noise` has a share in one.
    """
    height, width = raw.shape
    found = np.zeros((height, width), np.float64)
    for i in range(height):
        for j in range(width):
            y, x = places[0, i, j], places[1, i, j]
            if not (y >= 0 and x >= 0 and y <= height - 1 and x <= width - 1):
                continue
            top, left = int(y), int(x)
            below, right = y - top, x - left
            total, noisy = 0.0, False
            for r in range(2):
                for c in range(2):
                    weight = (below if r else 1 - below) * (right if c else 1 - right)
                    if weight > 0:
                        value = raw[top + r, left + c]
                        noisy = noisy or value == noise
                        total += weight * value
            found[i, j] = none if noisy else total
    return found
