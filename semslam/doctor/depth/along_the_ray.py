"""Depth along the ray instead of the optical axis: a fault of depth images that needs neither poses nor colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from semslam.camera import Camera
from semslam.doctor.finding import Finding
from semslam.frame import Frame

FEWEST_PATCHES = 60
ALONG_RAY = 0.42  # of plane patches that are flatter as z: sound recordings have 0.67 and more, rays 0.34 at most


def along_the_ray(frames: Sequence[Frame]) -> list[Finding]:
    """Whether depth is the distance from the camera and not z: then planes are flat only when it is read so.

    The inverse of z is linear over the pixels of a plane. Patches that are nearly flat either way are compared.
    """
    rows = [_patches(frame.depth, frame.camera) for frame in frames if frame.depth is not None]
    as_z, as_ray = np.concatenate([np.zeros((0, 2)), *rows]).T
    if len(as_z) == 0:
        return []
    flat = np.minimum(as_z, as_ray)
    chosen = flat <= np.percentile(flat, 30)
    if chosen.sum() < FEWEST_PATCHES or float((as_z < as_ray)[chosen].mean()) > ALONG_RAY:
        return []
    what = "planes are flat only when depth is the distance along each pixel's ray, not along the optical axis"
    remedy = "write `depth_along_ray: true` into camera.yaml"
    return [Finding("error", what, remedy)]


def _patches(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """(N, 2): how far square patches of an image are from planes, relative to depth: as z, and as the ray's length.

    All of an image's patches are fitted at once.
    """
    width = max(24, camera.width // 8)
    step = max(1, width // 12)
    u, v = (np.arange(camera.width) - camera.cx) / camera.fx, (np.arange(camera.height) - camera.cy) / camera.fy
    stretch = np.sqrt(1 + u[None, :] ** 2 + v[:, None] ** 2)
    if min(depth.shape) < width:
        return np.zeros((0, 2))
    along = np.arange(0, width, step) / width - 0.5
    down, across = (axis.ravel() for axis in np.meshgrid(along, along, indexing="ij"))
    basis = np.stack([across, down, np.ones_like(down)], axis=1)  # of planes, (P, 3)
    z, stretch = (
        sliding_window_view(image, (width, width))[:: width // 2, :: width // 2, ::step, ::step].reshape(-1, len(basis))
        for image in (depth, stretch)
    )
    kept = (z > 0).mean(axis=1) >= 0.8
    z, stretch = z[kept].astype(np.float64), stretch[kept]
    there = (z > 0).astype(np.float64)
    inverse = there / np.where(z > 0, z, 1)
    both = np.stack([inverse, inverse * stretch], axis=2)
    normal = (there @ (basis[:, :, None] * basis[:, None, :]).reshape(-1, 9)).reshape(-1, 3, 3)
    rest = (both - basis @ np.linalg.solve(normal, basis.T @ both)) * there[:, :, None]
    count = there.sum(axis=1)[:, None]
    return np.sqrt((rest**2).sum(axis=1) / count) / (both.sum(axis=1) / count)
