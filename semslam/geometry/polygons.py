"""Polygons as triangles."""

from __future__ import annotations

import numpy as np


def triangles_of(counts: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(M, 3) triangles that share their polygon's first corner.

    counts: (P,) how many corners each polygon has; those of one or two are left out. corners: all of them, one polygon
    after the other.
    """
    first, fans = np.cumsum(counts) - counts, np.maximum(counts - 2, 0)
    polygon = np.repeat(np.arange(len(counts)), fans)
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(fans) - fans, fans)
    start = first[polygon]
    return np.column_stack([corners[start], corners[start + step + 1], corners[start + step + 2]])
