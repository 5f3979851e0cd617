"""What a keyframe saw, kept small, to register later keyframes against."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from semslam.camera import Camera
from semslam.compiled import Pinhole
from semslam.engine import depth_filter
from semslam.frame import Frame, Observation, View
from semslam.loops import loop_kernels
from semslam.tracking.registration.settings import RegistrationConfig

f32 = np.float32
DEPTH_UNIT = 1e-4  # metres: of the keyframes' depth where 16 bits reach as far as the map does, 6.5 m; else larger
WIDTH = 320  # pixels that a snapshot has at least, where its image has; less than twice as many
GRID = 16  # pixels between the points that tell whether two keyframes see the same


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What a keyframe saw, at a resolution small enough to keep a thousand, whatever the camera's."""

    depth: np.ndarray  # (H, W) uint16, in `unit`, 0 = none
    grey: np.ndarray  # (H, W) uint8
    unit: float = DEPTH_UNIT  # metres

    @staticmethod
    def of(observation: Observation, camera: Camera, far: float) -> Snapshot:
        """camera: of `camera_of`. far: metres, the farthest depth that the map keeps."""
        unit, step = max(DEPTH_UNIT, far / 65535), round(observation.camera.width / camera.width)
        depth, grey = np.empty(camera.shape, np.uint16), np.empty(camera.shape, np.uint8)
        loop_kernels.every_nth(observation.depth, observation.color, step, f32(unit), depth, grey)
        return Snapshot(depth, grey, unit)

    @staticmethod
    def camera_of(camera: Camera) -> Camera:
        """The camera of a camera's snapshots: every n-th pixel, beginning with the first, so that centres stay centres.
        Every second, or less where that leaves `WIDTH` of them."""
        n = max(2, camera.width // WIDTH)
        width, height = -(-camera.width // n), -(-camera.height // n)
        return Camera(width, height, camera.fx / n, camera.fy / n, camera.cx / n, camera.cy / n)

    def observation(self, camera: Camera, noise: RegistrationConfig) -> Observation:
        """As an observation of the snapshots' camera."""
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
        rows, columns = len(range(stride // 2, camera.height, stride)), len(range(stride // 2, camera.width, stride))
        pixels, points = np.empty((rows * columns, 2), np.int32), np.empty((rows * columns, 7), f32)
        n = loop_kernels.surface_points(depth, normals, Pinhole.of(camera), stride, pixels, points)
        return View(camera, np.eye(4), self.grey.astype(f32), stride, pixels[:n], points[:n])

    def grid(self, camera: Camera) -> np.ndarray:
        """(P, 3) float32 a few points of the surface seen, camera frame, metres; z = 0 where there is none."""
        sparse = np.zeros(self.depth.shape, f32)
        some = slice(GRID // 2, None, GRID), slice(GRID // 2, None, GRID)
        sparse[some] = self.depth[some]
        return camera.backproject(sparse * f32(self.unit))[some].reshape(-1, 3).astype(f32)
