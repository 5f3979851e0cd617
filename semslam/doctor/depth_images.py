"""Faults of depth images that need no poses: measured along the ray, or beside the colour image's pixels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.doctor.finding import Finding
from semslam.frame import Frame

FEWEST_PATCHES = 60
ALONG_RAY = 0.42  # of plane patches that are flatter as z: sound recordings have 0.67 and more, rays 0.34 at most
REACH = 32  # pixels at 640 wide; shifts up to that are looked for
NOTABLE = 5  # pixels at 640 wide
CLEAR = 4.5  # standard deviations of the peak above its surroundings
FEWEST_FRAMES = 4


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


def beside_the_colour(frames: Sequence[Frame]) -> list[Finding]:
    """Whether depth lies a constant number of pixels beside the colour image, by edges that they share."""
    camera = frames[0].camera
    step = max(1, camera.width // 320)
    reach = max(4, round(REACH * camera.width / 640 / step))
    found = [c for frame in frames if (c := _edge_correlation(frame, step, reach)) is not None]
    if len(found) < FEWEST_FRAMES:
        return []
    mean = np.mean(found, axis=0)
    row, column = np.unravel_index(int(np.argmax(mean)), mean.shape)
    u, v = int(column - reach) * step, int(row - reach) * step
    level = float(np.median(mean))
    spread = 1.48 * float(np.median(np.abs(mean - level))) + 1e-9
    peak, here = mean[row, column] - level, mean[reach, reach] - level
    if np.hypot(u, v) < max(3, NOTABLE * camera.width / 640) or peak < CLEAR * spread or here > 0.7 * peak:
        return []
    what = f"the edges of depth fit those of the colour images when it is moved by about ({u}, {v}) pixels"
    remedy = "register depth to colour (depth_camera and T_color_depth in camera.yaml do), or move one of the images"
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


def _edge_correlation(frame: Frame, step: int, reach: int) -> np.ndarray | None:
    """How strong colour's edges are where depth's are, for (2 reach + 1)^2 shifts of depth, `step` pixels apart."""
    if frame.depth is None:
        return None
    height, width = frame.depth.shape[0] // step, frame.depth.shape[1] // step
    grey = cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA), (0, 0), 1.0)
    steep = cv2.magnitude(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1))
    steep = np.minimum(steep / (cv2.blur(steep, (31, 31)) + 1), 4)  # against its surroundings: faint edges count too
    depth = frame.depth[::step, ::step][:height, :width]
    edges = np.zeros(depth.shape, np.float32)
    for axis in (0, 1):
        other = np.roll(depth, -1, axis)
        both = (depth > 0) & (other > 0)
        edges[both & (np.abs(depth - other) > 0.08 * np.minimum(depth, other))] = 1
    edges[:4] = edges[-4:] = edges[:, :4] = edges[:, -4:] = 0
    if edges.sum() < 50:
        return None
    spectrum = np.fft.rfft2(steep - steep.mean()) * np.conj(np.fft.rfft2(edges))
    correlation = np.roll(np.fft.irfft2(spectrum, s=steep.shape), (reach, reach), (0, 1)) / edges.sum()
    return correlation[: 2 * reach + 1, : 2 * reach + 1]
