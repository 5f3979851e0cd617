"""Points whose depth is known from the camera's motion alone: features tracked from frame to frame and triangulated.

A network's depth is right in its shape and often wrong in its scale; where the camera's poses are known, parallax is
not. Each feature keeps the normal equations of the point nearest to all rays that saw it, so that a frame costs the
same however long a track is.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.tracking.optical_flow import corners_apart, follow

# Pixels count at 640 columns.
COUNT = 400  # features kept alive
APART = 10.0  # pixels between new features
QUALITY = 0.003  # of a corner, as a fraction of the best one's
RETURNS = 0.7  # pixels from where it started that a feature tracked forth and back may end
PARALLAX_DEG = 0.7  # RMS angle between the rays and their mean, from which a depth is believed
ERROR = 1.2  # pixels, RMS, between the rays and the point
MEMORY = 0.98  # what a ray still counts one frame later: recorded poses drift


@dataclass(frozen=True, eq=False)
class AnchorPoints:
    """Depths in one frame."""

    pixels: np.ndarray  # (N, 2) float32 (u, v)
    depths: np.ndarray  # (N,) float64 metres along z


class Anchors:
    """Tracks features through the frames of one camera with known poses."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self._scale = camera.width / 640  # pixels of this camera in one of 640 columns
        self._image: np.ndarray | None = None
        self._pixels = np.zeros((0, 2), np.float32)
        # sum over rays of M, M c and c M c with M = I - d d^T (d unit direction, c camera centre), and of 1
        self._normal = np.zeros((0, 3, 3))
        self._right = np.zeros((0, 3))
        self._rest = np.zeros(0)
        self._rays = np.zeros(0)

    def __call__(self, color: np.ndarray, T_world_camera: np.ndarray) -> AnchorPoints:
        """Follow the features into a frame (H, W, 3) seen from a pose; the points whose depth in it is known."""
        image = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
        if self._image is not None and len(self._pixels):
            self._follow(self._image, image)
        self._image = image
        self._replenish(image)
        self._seen_from(T_world_camera)
        return self._points(np.asarray(T_world_camera, np.float64))

    def _follow(self, before: np.ndarray, now: np.ndarray) -> None:
        """Pyramidal Lucas-Kanade; features that do not come back to where they were are dropped."""
        window, margin = max(7, round(15 * self._scale)) | 1, 5
        there, apart, found = follow(before, now, self._pixels, window, start=self._pixels)
        size = np.array([self.camera.width, self.camera.height])
        keep = found & (apart < RETURNS * self._scale)
        keep &= np.all((there >= margin) & (there < size - margin), axis=1)
        self._pixels = there[keep]
        self._normal, self._right = self._normal[keep], self._right[keep]
        self._rest, self._rays = self._rest[keep], self._rays[keep]

    def _replenish(self, image: np.ndarray) -> None:
        wanted = COUNT - len(self._pixels)
        if wanted < COUNT // 20:
            return
        new = corners_apart(image, self._pixels, wanted, QUALITY, max(3, round(APART * self._scale)))
        n = len(new)
        self._pixels = np.concatenate([self._pixels, new]).astype(np.float32)
        self._normal = np.concatenate([self._normal, np.zeros((n, 3, 3))])
        self._right = np.concatenate([self._right, np.zeros((n, 3))])
        self._rest = np.concatenate([self._rest, np.zeros(n)])
        self._rays = np.concatenate([self._rays, np.zeros(n)])

    def _seen_from(self, T_world_camera: np.ndarray) -> None:
        """Take note of the rays on which the features of the last frame lie, seen from a pose."""
        T, K = np.asarray(T_world_camera, np.float64), self.camera
        rays = np.column_stack(
            [(self._pixels[:, 0] - K.cx) / K.fx, (self._pixels[:, 1] - K.cy) / K.fy, np.ones(len(self._pixels))]
        )
        rays = rays.astype(np.float64) @ T[:3, :3].T
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        M = np.eye(3) - rays[:, :, None] * rays[:, None, :]
        at = M @ T[:3, 3]
        forget = MEMORY
        self._normal = forget * self._normal + M
        self._right = forget * self._right + at
        self._rest = forget * self._rest + at @ T[:3, 3]
        self._rays = forget * self._rays + 1

    def _points(self, T: np.ndarray) -> AnchorPoints:
        """Points seen under enough parallax that lie where all of their rays say."""
        K = self.camera
        # the smallest eigenvalue of the mean of M is the mean squared sine of the rays' angle to their mean direction
        spread = np.linalg.eigvalsh(self._normal)[:, 0] / np.maximum(self._rays, 1) if len(self._rays) else np.zeros(0)
        known = np.flatnonzero(spread > np.sin(np.radians(PARALLAX_DEG)) ** 2)
        points = np.linalg.solve(self._normal[known], self._right[known][..., None])[..., 0]
        squared = np.einsum("ni,nij,nj->n", points, self._normal[known], points)
        squared += self._rest[known] - 2 * np.einsum("ni,ni->n", points, self._right[known])
        off = np.sqrt(np.maximum(squared, 0) / self._rays[known])  # metres from the rays, RMS
        T_camera_world = poses.inverse(T)
        local = poses.transform(T_camera_world, points)
        z = local[:, 2]
        ahead = np.where(z > 0.1, z, 1.0)
        allowed = ERROR * self._scale
        good = (z > 0.1) & (off / ahead * K.fx < allowed)
        shown = K.project(np.column_stack([local[:, :2], ahead]))
        good &= np.linalg.norm(shown - self._pixels[known], axis=1) < 1.5 * allowed
        return AnchorPoints(self._pixels[known[good]], z[good])

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        state = {name: getattr(self, f"_{name}") for name in ("pixels", "normal", "right", "rest", "rays")}
        return state if self._image is None else state | {"image": self._image}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        for name in ("pixels", "normal", "right", "rest", "rays"):
            setattr(self, f"_{name}", state[name])
        self._image = state.get("image")
