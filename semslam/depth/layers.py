"""Surfaces that a map has twice, a little apart: where depth is unsure, views disagree, and only one can be right."""

from __future__ import annotations

import numpy as np

from semslam.engine.surfels import MARKED, SurfelMap

REACH = 0.15  # metres along the normal, before and behind a surfel, in which surer ones are looked for ...
STEP = 0.03  # ... at places so far apart ...
SIDE = 0.02  # ... and at most so far from each
SAME = 0.02  # metres along the normal: what is nearer is one surface
FACING = 0.87  # cosine between the normals of one surface
NEAREST = 4  # surfels that are looked at around each place


def remove_layers(surfels: SurfelMap) -> None:
    """Remove surfels straight before or behind a surer one that faces the same way.

    No camera sees two such surfaces at one place, but for the edges of steps. Of a map in files all positions, normals
    and confidences are in memory for it, 36 bytes a surfel.
    """
    living = [part[surfels.are_living(part)] for part in surfels.parts()]
    position = np.concatenate([surfels.position[part, :3] for part in living])
    normal = np.concatenate([surfels.normal[part] for part in living])
    surfels.color[np.concatenate(living)[less_sure_layers(position, normal[:, :3], normal[:, 3])], 3] = MARKED
    surfels.compact_all()


def less_sure_layers(positions: np.ndarray, normals: np.ndarray, confidence: np.ndarray, first: int = 0) -> np.ndarray:
    """(N,) bool: which surfels have a surer one, of the same normal, straight before or behind them.

    Args:
        positions: (N, 3) metres.
        normals: (N, 3) unit vectors.
        confidence: (N,).
        first: only surfels from this one on are looked at.
    """
    from scipy.spatial import cKDTree

    found = np.zeros(len(positions), bool)
    if len(positions) == first:
        return found
    tree = cKDTree(positions, balanced_tree=False, compact_nodes=False)
    for along in np.arange(SAME + STEP / 2 - 0.01, REACH, STEP):
        for side in (-along, along):
            rest = first + np.flatnonzero(~found[first:])
            places = positions[rest] + np.float32(side) * normals[rest]
            distance, near = tree.query(places, k=NEAREST, distance_upper_bound=SIDE, workers=-1)
            there = np.isfinite(distance)
            near = np.where(there, near, 0)
            apart = np.einsum("nkj,nj->nk", positions[near] - positions[rest, None], normals[rest])
            alike = np.einsum("nkj,nj->nk", normals[near], normals[rest]) > FACING
            surer = confidence[near] > confidence[rest, None]
            found[rest[(there & alike & surer & (np.abs(apart) > SAME)).any(axis=1)]] = True
    return found
