"""How a frame agrees with the map at the pose found: evidence that the search itself did not use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit

from semslam.compiled import SERIAL, project, rotated, transformed
from semslam.engine.depth_filter import depth_sigma
from semslam.tracking.registration.terms import most_apart

SAMPLED = 16  # every so-many-th point of the model is compared
COMPARED_ON = 1  # times that the grey images which are compared were halved
SURE = np.float32(0.7)  # trust of a point that is compared ...
FEWEST = 100  # ... unless fewer are; then all count


@dataclass(frozen=True, eq=False)
class Comparison:
    """How a frame agrees with a view of the map at the pose found: evidence that the search itself did not use."""

    depth: np.ndarray  # (n,) metres: of points of the map that the frame may show ...
    residual: np.ndarray  # (n,) metres: ... and how far the frame's surface is from them, along their normals, ...
    along_ray: np.ndarray  # (n,) metres: ... and by how much its depth differs: more, where a surface is seen obliquely
    fitting: float  # share of points with depth in both that fit within four standard deviations
    correlation: float  # of live and model grey, -1 to 1, whatever the exposure; nan where the view is flat
    gain: float  # contrast of the live image against the model's


class Compared(NamedTuple):
    """What `compare` counts."""

    same: int  # points of one surface in both, whose residuals are written
    fitting: int  # of them within four standard deviations
    measured: int  # points with depth in the frame
    correlation: float  # of live and model grey; 0 where one of them is flat
    model_std: float  # standard deviation of grey where both are known, grey levels; 0 where that is hardly anywhere
    live_std: float


@njit(**SERIAL)
def compare(points, trust, T, live, camera, noise, model_grey, out):
    """A sample of the model's points (N, 7) at T = T_live_view beside the live frame.

    live: its grey image is of half the size (`COMPARED_ON`), so that noise in two flat greys does not make them differ.
    model_grey: (N,) that of the points there. out: (3, N // SAMPLED + 1) float32, of each point of one surface in both
    its depth, the distance along its normal, and along the ray, metres.
    """
    depth, normals, small = live
    width, height, fx, fy, cx, cy = camera
    half = np.float32(0.5)
    n_sure = 0
    for i in range(0, len(points), SAMPLED):
        n_sure += trust[i] >= SURE
    greys = np.empty((2, out.shape[1]), np.float32)
    same, fitting, measured, known = 0, 0, 0, 0
    for i in range(0, len(points), SAMPLED):
        if n_sure >= FEWEST and trust[i] < SURE:
            continue
        x, y, z = transformed(T, points[i, 0], points[i, 1], points[i, 2])
        if z <= np.float32(0.05):
            continue
        u, v = project(camera, x, y, z)
        if not (u >= 0 and v >= 0 and u < width - 1 and v < height - 1):
            continue
        column, row = int(u + half), int(v + half)
        d = depth[row, column]
        sigma = depth_sigma(z, noise)
        other = d > 0 and abs(d - z) > most_apart(np.float32(0.1), z, sigma)
        measured += d > 0
        if d > 0 and not other:
            nx, ny, nz = rotated(T, points[i, 3], points[i, 4], points[i, 5])
            facing = normals[row, column, 0] * nx + normals[row, column, 1] * ny + normals[row, column, 2] * nz
            if facing > np.float32(0.77):
                qx, qy = (np.float32(column) - cx) / fx, (np.float32(row) - cy) / fy
                along = nx * (qx * d - x) + ny * (qy * d - y) + nz * (d - z)
                out[0, same], out[1, same] = z, along
                out[2, same] = along / max(abs(nx * qx + ny * qy + nz), np.float32(0.1))
                fitting += abs(along) < np.float32(4) * sigma
                same += 1
        row, column = int((v + half) * half), int((u + half) * half)
        if (
            row < small.shape[0]
            and column < small.shape[1]
            and model_grey[i] >= 0
            and small[row, column] >= 0
            and not other
        ):
            greys[0, known], greys[1, known] = model_grey[i], small[row, column]
            known += 1
    if known < 50:
        return Compared(same, fitting, measured, 0.0, 0.0, 0.0)
    mean_0, mean_1 = 0.0, 0.0
    for k in range(known):
        mean_0 += greys[0, k]
        mean_1 += greys[1, k]
    mean_0, mean_1 = mean_0 / known, mean_1 / known
    squares_0, squares_1, products = 0.0, 0.0, 0.0
    for k in range(known):
        p, q = greys[0, k] - mean_0, greys[1, k] - mean_1
        squares_0 += p * p
        squares_1 += q * q
        products += p * q
    flat = squares_0 <= 0 or squares_1 <= 0
    correlation = 0.0 if flat else products / np.sqrt(squares_0 * squares_1)
    return Compared(same, fitting, measured, correlation, np.sqrt(squares_0 / known), np.sqrt(squares_1 / known))
