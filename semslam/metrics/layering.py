"""How much of a map is doubled: surfaces that lie in layers, one before the other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
from scipy.spatial import cKDTree

from semslam.cloud import CloudInParts, SurfelCloud
from semslam.metrics.voxels import voxel_keys

SAME_SIDE = float(np.cos(np.radians(30)))  # cosine of the angle between normals of one side of a surface
FAR = 0.3  # metres; farther from a surfel, nothing tells whether it is layered
SLAB = 1 << 20  # surfels of a map in parts that are looked at together


def layering(cloud: SurfelCloud | CloudInParts) -> float:
    """How much of a map is layered: the share of surfels with another one of the same normal (within 30 degrees)
    straight before or behind it, 2 to 20 cm away along the normal and at most 2 cm to the side.

    Both stand for the mean of the surfels within 2 cm of them: a rough surface is not layered. Of a sample of surfels,
    the same every time. A wall mapped once scores 0; NaN for an empty map.
    """
    clouds = CloudInParts.of(cloud) if isinstance(cloud, SurfelCloud) else cloud
    if len(clouds) == 0:
        return float("nan")
    chosen, samples = np.arange(len(clouds)), 20_000
    if len(clouds) > samples:
        chosen = np.random.default_rng(0).choice(len(clouds), samples, replace=False)
    positions, normals = _joined(
        clouds, lambda part, first: chosen[(chosen >= first) & (chosen < first + len(part))] - first
    )
    axis = int(np.ptp(positions, axis=0).argmax())
    along, slabs = positions[:, axis], 1 if clouds.whole is not None else -(-len(clouds) // SLAB)
    ends = [-np.inf, *np.quantile(along, np.linspace(0, 1, slabs + 1)[1:-1]), np.inf]
    layered = np.zeros(len(positions), bool)
    for low, high in pairwise(ends):  # of a large map, only the surfels that reach into a slab are in memory
        inside = (along >= low) & (along < high)
        layered[inside] = _layered(positions[inside], normals[inside], *_thinned(clouds, axis, low - FAR, high + FAR))
    return float(layered.mean())


def _joined(clouds: CloudInParts, which: Callable[[SurfelCloud, int], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Positions and normals (N, 3) each of the surfels that `which` chooses of a part and the number of its first."""
    positions, normals, first = [], [], 0
    for part in clouds.geometry:
        some = which(part, first)
        positions.append(part.positions[some])
        normals.append(part.normals[some])
        first += len(part)
    return np.concatenate(positions), np.concatenate(normals)


def _thinned(clouds: CloudInParts, axis: int, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions and normals (N, 3) each of the first surfel in every cubic centimetre between two ends of an axis."""

    def firsts(positions: np.ndarray) -> np.ndarray:
        return np.unique(voxel_keys(positions, 0.01), return_index=True)[1]

    def which(part: SurfelCloud, _: int) -> np.ndarray:
        there = np.flatnonzero((part.positions[:, axis] >= low) & (part.positions[:, axis] < high))
        return there[firsts(part.positions[there])]

    positions, normals = _joined(clouds, which)
    kept = firsts(positions)
    return positions[kept], normals[kept]


def _layered(
    positions: np.ndarray, normals: np.ndarray, others: np.ndarray, normals_of_others: np.ndarray
) -> np.ndarray:
    """(N,) bool: which surfels at positions (N, 3) have one of the others (M, 3) before or behind them."""
    layered = np.zeros(len(positions), bool)
    if len(positions) == 0:
        return layered
    tree = cKDTree(others)  # one surfel a centimetre is enough to meet
    middles = _middles(positions, normals, tree, normals_of_others)
    for step in np.arange(0.02, 0.20, 0.02):
        for side in (-1, 1):
            rest = np.flatnonzero(~layered)
            ends = middles[rest] + side * (step + 0.01) * normals[rest]
            distance, found = tree.query(ends, distance_upper_bound=0.02, workers=2)
            rest, found = rest[np.isfinite(distance)], found[np.isfinite(distance)]
            same = np.einsum("nk,nk->n", normals_of_others[found], normals[rest]) > SAME_SIDE
            rest, found = rest[same], found[same]
            there = _middles(others[found], normals_of_others[found], tree, normals_of_others)
            apart = np.abs(np.einsum("nk,nk->n", there - middles[rest], normals[rest]))
            layered[rest[apart > 0.02]] = True
    return layered


def _middles(points: np.ndarray, normals: np.ndarray, tree: cKDTree, normals_of_tree: np.ndarray) -> np.ndarray:
    """Points (N, 3) moved along their normals to the mean of the tree's points within 2 cm that have such a normal."""
    if len(points) == 0:
        return points
    distance, found = tree.query(points, k=24, distance_upper_bound=0.02, workers=2)
    near = np.isfinite(distance)
    found = np.where(near, found, 0)
    near &= np.einsum("nmk,nk->nm", normals_of_tree[found], normals) > SAME_SIDE
    along = np.einsum("nmk,nk->nm", tree.data[found] - points[:, None], normals)
    mean = (along * near).sum(axis=1) / np.maximum(near.sum(axis=1), 1)
    return points + mean[:, None] * normals
