"""Depth and ids in another size, without moving against colour, whose pixels are means over areas.

The centre of pixel x of an image made s times smaller lies at s (x + 1/2) - 1/2 of the larger one, as in
`Camera.resized`. OpenCV's INTER_NEAREST reads at s x instead, (s - 1) / 2 pixels to the upper left.
"""

from __future__ import annotations

import numpy as np

SMOOTH_STEP = 0.02  # of the depth; between readings further apart runs an edge, which no interpolation may bridge


def resized_ids(ids: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Ids (H, W) as (h, w) of size (w, h): those at the pixels' centres. Also for whatever else may not be mixed."""
    import cv2

    if (ids.shape[1], ids.shape[0]) == size:
        return ids
    return cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST_EXACT)


def resized_depth(depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Depth (H, W) float32 m, 0 = none, as (h, w) of size (w, h): that of the surfaces at the pixels' centres.

    1 / depth is interpolated, which is exact on planes, where all readings around lie on one surface; else the reading
    nearest to the centre is taken.
    """
    import cv2

    nearest = resized_ids(depth, size)
    if nearest is depth:
        return depth
    there = depth > 0
    inverse = np.divide(np.float32(1), depth, out=np.zeros(depth.shape, np.float32), where=there)
    smooth = cv2.resize(inverse, size, interpolation=cv2.INTER_LINEAR)
    whole = cv2.resize(there.astype(np.float32), size, interpolation=cv2.INTER_LINEAR) > 0.999
    on_surface = whole & (np.abs(smooth * nearest - 1) < SMOOTH_STEP)
    return np.divide(np.float32(1), smooth, out=nearest, where=on_surface)
