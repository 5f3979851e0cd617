"""Absolute predictions of poses and an odometry's motions, brought to agree over a sliding window of frames.

The idea is that of MapNet+PGO (Brahmbhatt et al., "Geometry-Aware Learning of Maps for Camera Localization", CVPR
2018, section 3.4): a network's poses do not drift but jump, an odometry's motions are exact but drift.

For programs that ask a pose network for a trajectory, as `benchmarks/poses.py` does; no command needs it,
because what `semslam localise` finds in a map is nearer (docs/networks.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from semslam.loops.pose_graph import WORLD, Edge, optimized_poses


@dataclass(frozen=True)
class Covariances:
    """How far predictions and motions are to be trusted: standard deviations, the same along every axis."""

    absolute_m: float = 0.2  # of the network, metres
    absolute_deg: float = 5.0
    relative_m: float = 0.01  # of the odometry, metres from one frame of the window to the next
    relative_deg: float = 0.5

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 < value < np.inf:
                raise ValueError(f"covariances.{name} is {value}; expected a positive number")

    @property
    def absolute(self) -> np.ndarray:
        """(6,) standard deviations of a prediction's twist: three in metres, three in radians."""
        return np.repeat([self.absolute_m, np.radians(self.absolute_deg)], 3)

    @property
    def relative(self) -> np.ndarray:
        """(6,) standard deviations of a motion's twist."""
        return np.repeat([self.relative_m, np.radians(self.relative_deg)], 3)


def windowed_poses(
    predicted: np.ndarray,
    motions: np.ndarray,
    window: int | None = 7,
    covariances: Covariances | None = None,
    *,
    skip: int = 1,
) -> np.ndarray:
    """A trajectory of predictions, each pose replaced by the optimum of the window around it.

    At the ends of the trajectory the window lies inside it, and the pose is not its middle one.

    Args:
        predicted: (N, 4, 4) T_world_camera of consecutive frames.
        motions: (N - 1, 4, 4) T_i_j from frame i to j = i + 1, of an odometry.
        window: frames in a window; None = one window over all of them.
        skip: frames from one of the window to the next; the motions in between are composed.

    Returns: (N, 4, 4).
    """
    predicted, motions = np.asarray(predicted, np.float64), np.asarray(motions, np.float64)
    if predicted.ndim != 3 or predicted.shape[1:] != (4, 4):
        raise ValueError(f"the poses have shape {predicted.shape}, expected (N, 4, 4)")
    if motions.shape != (max(len(predicted) - 1, 0), 4, 4):
        raise ValueError(f"{len(predicted)} poses need motions (N - 1, 4, 4) between them, found {motions.shape}")
    if (window is not None and window < 2) or skip < 1:
        raise ValueError(f"window is {window} and skip {skip}; expected at least 2 and 1")
    result = predicted.copy()
    for first in range(min(skip, len(predicted))):  # each skip-th frame from here on is a trajectory of its own
        frames = np.arange(first, len(predicted), skip)
        if len(frames) > 1:
            ways = [reduce(np.matmul, motions[i : i + skip]) for i in frames[:-1]]
            result[frames] = _around_each(predicted[frames], ways, window, covariances or Covariances())
    return result


def _around_each(
    predicted: np.ndarray, motions: list[np.ndarray], window: int | None, covariances: Covariances
) -> np.ndarray:
    """`windowed_poses` of neighbouring frames: each window is a part of one graph, connected to no other."""
    count = len(predicted)
    window = count if window is None else min(window, count)
    starts = np.clip(np.arange(count) - window // 2, 0, count - window)
    distinct, which = np.unique(starts, return_inverse=True)
    absolute, relative = np.diag(1 / covariances.absolute**2), np.diag(1 / covariances.relative**2)
    nodes: list[np.ndarray] = []
    edges: list[Edge] = []
    for start in distinct:
        for frame in range(start, start + window):
            node = len(nodes)
            nodes.append(predicted[frame])
            edges.append(Edge(WORLD, node, predicted[frame], absolute))
            if frame > start:
                edges.append(Edge(node - 1, node, motions[frame - 1], relative))
    solved = optimized_poses(np.stack(nodes), edges, fixed=(), iterations=30).reshape(-1, window, 4, 4)
    return solved[which, np.arange(count) - starts]
