"""The compiled loop that turns hits into colours. One thread: it runs beside the engine's parallel loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit


class Hits(NamedTuple):
    """Where the rays of an image (H, W) meet triangles."""

    z: np.ndarray  # (H, W) float32 metres along z; infinite where nothing was hit
    triangle: np.ndarray  # (H, W) uint32
    barycentric: np.ndarray  # (H, W, 2) float32, of the triangle's second and third corner
    normals: np.ndarray  # (H, W, 3) float32 of the triangle, world frame


@njit(cache=True, nogil=True, error_model="numpy")
def shade(hits, rays, corners, row, atlas, labels, size, unlabelled):
    """Colour (H, W, 3) uint8, depth (H, W), labels (H, W) and cosine of incidence (H, W) of the hits of rays (H, W, 6).

    corners (M, 9) holds (u, v, light) of a triangle's first corner and the steps to its second and third. atlas stacks
    tiles of (size + 2)^2 texels, whose border repeats the other side; row is a tile's first row.
    """
    height, width = hits.z.shape
    color = np.zeros((height, width, 3), np.uint8)
    depth = np.zeros((height, width), np.float32)
    label = np.full((height, width), unlabelled, np.uint8)
    incidence = np.zeros((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            z = hits.z[y, x]
            if not np.isfinite(z):
                continue
            t = hits.triangle[y, x]
            a, b = hits.barycentric[y, x, 0], hits.barycentric[y, x, 1]
            u = corners[t, 0] + a * corners[t, 3] + b * corners[t, 6]
            v = corners[t, 1] + a * corners[t, 4] + b * corners[t, 7]
            light = corners[t, 2] + a * corners[t, 5] + b * corners[t, 8]
            u -= size * np.floor(u / size)
            v -= size * np.floor(v / size)
            column, line = int(u), int(v)
            du, dv = u - column, v - line
            column += 1  # the border
            line += row[t] + 1
            for k in range(3):
                top = (1 - du) * atlas[line, column, k] + du * atlas[line, column + 1, k]
                bottom = (1 - du) * atlas[line + 1, column, k] + du * atlas[line + 1, column + 1, k]
                value = light * ((1 - dv) * top + dv * bottom) + np.float32(0.5)
                color[y, x, k] = np.uint8(min(max(value, np.float32(0)), np.float32(255)))
            depth[y, x] = z
            label[y, x] = labels[t]
            dot, norm2 = np.float32(0), np.float32(0)
            for k in range(3):
                dot += hits.normals[y, x, k] * rays[y, x, 3 + k]
                norm2 += rays[y, x, 3 + k] * rays[y, x, 3 + k]
            incidence[y, x] = abs(dot) / np.sqrt(norm2)
    return color, depth, label, incidence
