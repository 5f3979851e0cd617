"""Surfaces that two parts of a map, or two maps, both have: where parts are joined, one of each pair has to go."""

from __future__ import annotations

import numpy as np

SAME = 0.02  # metres, or 1.5 of its radii if that is more, from a surfel to another one of the same surface
FACING = 0.7  # cosine between the normals of one surface


def doubles(surfels: tuple[np.ndarray, np.ndarray], others: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """(P, 2) which of some surfels have their nearest of the others on the same surface, and which one that is.

    Both sides: positions and radii (N, 4), normals and what comes after them (N, 3 or more), of one world; metres.
    """
    from scipy.spatial import cKDTree

    (position, normal), (other_position, other_normal) = surfels, others
    if len(position) == 0 or len(other_position) == 0:
        return np.zeros((0, 2), np.int64)
    reach = np.maximum(1.5 * position[:, 3], SAME)
    low, high = position[:, :3].min(axis=0) - reach.max(), position[:, :3].max(axis=0) + reach.max()
    near = np.flatnonzero(((other_position[:, :3] > low) & (other_position[:, :3] < high)).all(axis=1))
    if len(near) == 0:
        return np.zeros((0, 2), np.int64)
    distance, nearest = cKDTree(other_position[near, :3]).query(
        position[:, :3], distance_upper_bound=float(reach.max())
    )
    close = np.flatnonzero(distance <= reach)
    partner = near[nearest[close]]
    same = np.einsum("ij,ij->i", normal[close, :3], other_normal[partner, :3]) > FACING
    return np.column_stack([close[same], partner[same]])
