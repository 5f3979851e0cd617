"""The compiled loop of loop closure: a map bent by time."""

from __future__ import annotations

import numba as nb
import numpy as np

from semslam.depth_filter import COMPILED


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
