"""Where a camera is that shows landmarks of a sparse map at known pixels."""

from __future__ import annotations

import numpy as np

from semslam import poses
from semslam.tracking.visual.bundle_adjustment import Tolerance, pose_equations
from semslam.tracking.visual.sparse_map import SparseMap

ITERATIONS = 12
WIDE, FEW = 6.0, 4  # standard deviations from which errors count linearly, in the first few iterations
NARROW = 2.0  # likewise from then on


def located(
    world: SparseMap, T: np.ndarray, ids: np.ndarray, pixels: np.ndarray, given: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The pose, camera from world, from which landmarks (N,) are seen at pixels (N, 2), from a guess T (4, 4).

    given: (4, 4) what is known of it beforehand, as well as the map's `given_std` says. Gauss-Newton with Huber's
    weights; see `pose_equations`. Returns the pose, and each landmark's distance (N,) in standard deviations.
    """
    K, distances = world.camera.K, np.full(len(ids), np.inf)
    if len(ids) < 6:
        return T, distances
    seen = world.sighting(ids, pixels.astype(np.float64))
    for iteration in range(ITERATIONS):
        tolerance = Tolerance(world.pixel_std, NARROW if iteration >= FEW else WIDE)
        H, b = pose_equations(seen, T, K, tolerance, distances)
        H += 1e-6 * np.eye(6)
        if given is not None:
            information = 1 / np.repeat(world.given_std, 3) ** 2
            H, b = H + np.diag(information), b + information * poses.log(T @ poses.inverse(given))
        step = -np.linalg.solve(H, b)
        T = poses.exp(step) @ T
        if iteration > FEW and np.abs(step).max() < 1e-6:
            break
    return T, distances
