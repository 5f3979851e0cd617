"""Compiled loops of loop closure: what the old part of a map looks like, and the map bent by time."""

from __future__ import annotations

import numba as nb
import numpy as np

from semslam.depth_filter import COMPILED
from semslam.kernels import CHUNK, MICRO, atomic_min

f32 = np.float32


@nb.njit(**COMPILED)
def project_old(chunks, n, counts, position, normal, seen, before, R, t, K, near, far, width, height, index):
    """The index map, as `kernels.project_chunks` makes it, of the surfels first seen before a frame."""
    fx, fy, cx, cy = K[0], K[1], K[2], K[3]
    for c_ in nb.prange(n):
        c = np.int64(c_)  # prange counts unsigned
        first = np.int64(chunks[c]) * CHUNK
        for i in range(np.uint64(first), np.uint64(first + counts[chunks[c]])):
            if seen[i, 0] >= before or normal[i, 3] < f32(0):
                continue
            x = position[i, 0] - t[0]
            y = position[i, 1] - t[1]
            z = position[i, 2] - t[2]
            z_c = R[0, 2] * x + R[1, 2] * y + R[2, 2] * z
            if z_c < near or z_c > far:
                continue
            u = np.int32(np.floor((R[0, 0] * x + R[1, 0] * y + R[2, 0] * z) / z_c * fx + cx + f32(0.5)))
            v = np.int32(np.floor((R[0, 1] * x + R[1, 1] * y + R[2, 1] * z) / z_c * fy + cy + f32(0.5)))
            if u < 0 or v < 0 or u >= width or v >= height:
                continue
            atomic_min(index, v * width + u, (np.int64(z_c * MICRO) << 32) | np.int64(i))


@nb.njit(**COMPILED)
def bend(slots, position, normal, seen, T_new_old, out_positions, out_normals):
    """Positions and normals (N, 3) of the surfels in `slots`, each moved by the transform of the frame that made it.

    T_new_old (F, 3, 4) float32, by frame index; frames beyond its end move with the last.
    """
    last = T_new_old.shape[0] - 1
    for j_ in nb.prange(slots.size):
        j = np.int64(j_)  # prange counts unsigned
        i = slots[j]
        f = min(max(np.int64(seen[i, 0]), 0), last)
        for k in range(3):
            a, b, c = T_new_old[f, k, 0], T_new_old[f, k, 1], T_new_old[f, k, 2]
            out_positions[j, k] = a * position[i, 0] + b * position[i, 1] + c * position[i, 2] + T_new_old[f, k, 3]
            out_normals[j, k] = a * normal[i, 0] + b * normal[i, 1] + c * normal[i, 2]
