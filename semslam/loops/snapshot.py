"""What a keyframe saw, kept small, to register later keyframes against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semslam.camera import Camera
from semslam.compiled import Pinhole
from semslam.engine import depth_filter
from semslam.frame import Frame, Observation, View
from semslam.tracking.registration.settings import RegistrationConfig

f32 = np.float32
DEPTH_UNIT = 1e-4  # metres: of the keyframes' depth where 16 bits reach as far as the map does, 6.5 m; else larger
GRID = 16  # pixels between the points that tell whether two keyframes see the same


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a keyframe saw, at half the resolution, small enough to keep a thousand."""

    depth: np.ndarray  # (H, W) uint16, in `unit`, 0 = none
    grey: np.ndarray  # (H, W) uint8
    unit: float = DEPTH_UNIT  # metres

    @staticmethod
    def of(observation: Observation, far: float) -> Snapshot:
        """far: metres, the farthest depth that the map keeps."""
        unit = max(DEPTH_UNIT, far / 65535)
        depth = np.rint(observation.depth[::2, ::2] / unit)
        red, green, blue = np.moveaxis(observation.color[::2, ::2].astype(np.uint16), 2, 0)
        grey = (red + green + blue) // 3
        return Snapshot(np.where(depth < 65536, depth, 0).astype(np.uint16), grey.astype(np.uint8), unit)

    def observation(self, camera: Camera, noise: RegistrationConfig) -> Observation:
        """As an observation of the half-sized camera."""
        depth, normals = self._surface(camera, noise)
        color = np.repeat(self.grey[..., None], 3, axis=2)
        return Observation(Frame(0, 0.0, color, camera), camera, color, depth, normals=normals)

    def _surface(self, camera: Camera, noise: RegistrationConfig) -> tuple[np.ndarray, np.ndarray]:
        """Depth (H, W) in metres and normals (H, W, 3)."""
        depth = self.depth * f32(self.unit)
        normals = np.empty((*depth.shape, 3), f32)
        sigma = depth_filter.Noise.of(noise.noise, noise.noise_quadratic)
        depth_filter.normals_of(depth, Pinhole.of(camera), sigma, normals)
        return depth, normals

    def view(self, camera: Camera, noise: RegistrationConfig, stride: int) -> View:
        """As the model that another keyframe is registered against, its camera at the origin."""
        depth, normals = self._surface(camera, noise)
        v, u = np.nonzero(normals[stride // 2 :: stride, stride // 2 :: stride, 2])
        v, u = stride * v + stride // 2, stride * u + stride // 2
        points = np.empty((len(v), 7), f32)
        points[:, 0] = (u - camera.cx) / camera.fx * depth[v, u]
        points[:, 1] = (v - camera.cy) / camera.fy * depth[v, u]
        points[:, 2] = depth[v, u]
        points[:, 3:6] = normals[v, u]
        points[:, 6] = np.inf  # measured once, but by the sensor itself
        pixels = np.column_stack([u, v]).astype(np.int32)
        return View(camera, np.eye(4), self.grey.astype(f32), stride, pixels, points)

    def grid(self, camera: Camera) -> np.ndarray:
        """(P, 3) float32 a few points of the surface seen, camera frame, metres; z = 0 where there is none."""
        sparse = np.zeros(self.depth.shape, f32)
        some = slice(GRID // 2, None, GRID), slice(GRID // 2, None, GRID)
        sparse[some] = self.depth[some]
        return camera.backproject(sparse * f32(self.unit))[some].reshape(-1, 3).astype(f32)
