"""Where a camera is that shows landmarks of a sparse map at known pixels."""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from semslam import poses
from semslam.compiled import SERIAL
from semslam.tracking.visual.sparse_map import SparseMap

ITERATIONS = 12
WIDE, FEW = 6.0, 4  # standard deviations from which errors count linearly, in the first few iterations
NARROW = 2.0  # likewise from then on


class Sighting(NamedTuple):
    """Landmarks whose places are known, but for their depths, and where one camera sees them."""

    points: np.ndarray  # (N, 3) float64 world
    along: np.ndarray  # (N, 3) float64 world: derivative of the point by the logarithm of its depth
    variance: np.ndarray  # (N,) float64 of that logarithm
    pixels: np.ndarray  # (N, 2) float64


class Tolerance(NamedTuple):
    """How errors count."""

    pixel_std: float  # pixels: of where a landmark is seen
    robust: float  # standard deviations, from which errors count linearly (Huber); beyond eight times that not at all


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
    _, points, along = world.project(ids, np.eye(4))
    seen = Sighting(points, along, world.variance[ids], pixels.astype(np.float64))
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


@nb.njit(**SERIAL)
def pose_equations(sighting, T_camera_world, K, tolerance, distances):
    """The normal equations H (6, 6) and b (6,) of a camera's twist, exp(x) T_camera_world, to see the landmarks.

    An error along the line on which a landmark of uncertain depth would be seen counts less: its covariance is
    pixel_std^2 I + variance d d^T, d being the pixel's derivative by the logarithm of the depth. distances (N,) become
    the errors in these standard deviations, infinite behind the camera. K: (3, 3).
    """
    points, along, variance, pixels = sighting
    H, b = np.zeros((6, 6)), np.zeros(6)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    noise = tolerance.pixel_std * tolerance.pixel_std
    J, weighted = np.zeros((2, 6)), np.zeros((2, 6))
    p, d = np.empty(3), np.empty(3)
    for n in range(len(points)):
        for i in range(3):
            p[i], d[i] = T_camera_world[i, 3], 0.0
            for k in range(3):
                p[i] += T_camera_world[i, k] * points[n, k]
                d[i] += T_camera_world[i, k] * along[n, k]
        distances[n] = np.inf
        if p[2] < 0.05:
            continue
        x, y = p[0] / p[2], p[1] / p[2]
        gx, gy = fx / p[2], fy / p[2]
        # derivative g of a pixel by the point, then points x g by the rotation
        J[0, 0], J[0, 2] = gx, -gx * x
        J[1, 1], J[1, 2] = gy, -gy * y
        for row in range(2):
            J[row, 3] = p[1] * J[row, 2] - p[2] * J[row, 1]
            J[row, 4] = p[2] * J[row, 0] - p[0] * J[row, 2]
            J[row, 5] = p[0] * J[row, 1] - p[1] * J[row, 0]
        r0, r1 = fx * x + cx - pixels[n, 0], fy * y + cy - pixels[n, 1]
        spread = np.sqrt(variance[n])
        s0, s1 = gx * (d[0] - x * d[2]) * spread, gy * (d[1] - y * d[2]) * spread
        # the covariance's inverse by Sherman and Morrison
        shared = 1 / (noise * (noise + s0 * s0 + s1 * s1))
        w00, w01, w11 = 1 / noise - shared * s0 * s0, -shared * s0 * s1, 1 / noise - shared * s1 * s1
        distance = np.sqrt(max(w00 * r0 * r0 + 2 * w01 * r0 * r1 + w11 * r1 * r1, 0.0))
        distances[n] = distance
        if distance > 8 * tolerance.robust:
            continue
        weight = min(1.0, tolerance.robust / max(distance, 1e-9))
        for i in range(6):
            weighted[0, i] = weight * (w00 * J[0, i] + w01 * J[1, i])
            weighted[1, i] = weight * (w01 * J[0, i] + w11 * J[1, i])
            b[i] += weighted[0, i] * r0 + weighted[1, i] * r1
        for i in range(6):
            for k in range(6):
                H[i, k] += weighted[0, i] * J[0, k] + weighted[1, i] * J[1, k]
    return H, b
