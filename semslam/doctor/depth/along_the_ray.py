"""Depth along the ray instead of the optical axis: a fault of depth images that needs neither poses nor colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semslam.camera import Camera
from semslam.doctor.finding import Finding
from semslam.frame import Frame

FEWEST_PATCHES = 60
ALONG_RAY = 0.42  # of plane patches that are flatter as z: sound recordings have 0.67 and more, rays 0.34 at most


def along_the_ray(frames: Sequence[Frame]) -> list[Finding]:
    """Whether depth is the distance from the camera and not z: then planes are flat only when it is read so.

    The inverse of z is linear over the pixels of a plane. Patches that are nearly flat either way are compared.
    """
    rows = [row for frame in frames if frame.depth is not None for row in _patches(frame.depth, frame.camera)]
    if not rows:
        return []
    as_z, as_ray = np.array(rows).T
    flat = np.minimum(as_z, as_ray)
    chosen = flat <= np.percentile(flat, 30)
    if chosen.sum() < FEWEST_PATCHES or float((as_z < as_ray)[chosen].mean()) > ALONG_RAY:
        return []
    what = "planes are flat only when depth is the distance along each pixel's ray, not along the optical axis"
    remedy = "write `depth_along_ray: true` into camera.yaml"
    return [Finding("error", what, remedy)]


def _patches(depth: np.ndarray, camera: Camera) -> list[tuple[float, float]]:
    """How far square patches of an image are from planes, relative to depth: read as z, and as the ray's length."""
    width = max(24, camera.width // 8)
    step = max(1, width // 12)
    u, v = (np.arange(camera.width) - camera.cx) / camera.fx, (np.arange(camera.height) - camera.cy) / camera.fy
    stretch = np.sqrt(1 + u[None, :] ** 2 + v[:, None] ** 2)
    found = []
    for top in range(0, camera.height - width + 1, width // 2):
        for left in range(0, camera.width - width + 1, width // 2):
            rows, columns = np.mgrid[top : top + width : step, left : left + width : step]
            z = depth[rows, columns]
            there = z > 0
            if there.mean() < 0.8:
                continue
            basis = np.column_stack([columns[there] - left, rows[there] - top, np.ones(there.sum())])
            inverse = 1 / z[there].astype(np.float64)
            both = np.column_stack([inverse, inverse * stretch[rows, columns][there]])
            rest = both - basis @ np.linalg.lstsq(basis, both, rcond=None)[0]
            found.append(tuple(np.sqrt((rest**2).mean(axis=0)) / both.mean(axis=0)))
    return found
