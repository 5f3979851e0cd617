"""A street whose every surface is known: a road, pavements, two rows of houses, parked cars, under a sky."""

from __future__ import annotations

import numpy as np

from semslam.camera import Camera
from semslam.frame import UNLABELLED, Frame
from semslam.labels import LABEL_SETS
from sequences.sequence import Sequence

WIDTH, HEIGHT, FOCAL = 1200, 350, 700.0  # pixels, about KITTI's
EYE = 1.65  # metres above the road
FPS = 10.0  # frames a second
FARTHEST = 80.0  # metres
# boxes of the world (x right, y down, z ahead), metres: lower and upper corner, class
HOUSES = [((side * 9 - 0.5, -8.0, z), (side * 9 + 0.5, EYE, z + 11.0)) for side in (-1, 1) for z in range(0, 120, 12)]
CARS = [
    ((side * 3 - 0.9, 0.2, z), (side * 3 + 0.9, EYE, z + 4.2)) for side, z in ((1, 14), (-1, 22), (1, 37), (-1, 55))
]


class Street(Sequence):
    """A drive down the street; depth is exact, up to 80 m."""

    def __init__(self, frames: int = 6, speed: float = 8.0) -> None:
        """speed: metres a second."""
        self.name, self.label_set, self.has_depth = "street", "kitti6", True
        self.camera = Camera(WIDTH, HEIGHT, FOCAL, FOCAL, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
        self.timestamps = np.arange(frames) / FPS
        T = np.tile(np.eye(4), (frames, 1, 1))
        T[:, 2, 3] = speed * self.timestamps
        self.poses = tuple(T)
        self._cast_before: dict[int, Frame] = {}

    def __getitem__(self, index: int) -> Frame:
        i = self._checked(index)
        if i in self._cast_before:
            return self._cast_before[i]
        T = self.poses[i]
        depth, kind, texture = self._cast(T[:3, 3])
        ids = [LABEL_SETS["kitti6"].id_of(name) for name in ("road", "building", "car")]
        labels = np.full(depth.shape, UNLABELLED, np.uint8)
        for number, id_ in enumerate(ids):
            labels[(kind == number) & (depth > 0)] = id_
        base = np.array([[90, 90, 95], [150, 110, 80], [60, 70, 160]], np.float32)[np.clip(kind, 0, 2)]
        color = np.where(kind[..., None] < 0, 200, base + texture[..., None]).clip(0, 255).astype(np.uint8)
        self._cast_before[i] = Frame(i, float(self.timestamps[i]), color, self.camera, depth, labels, T.copy())
        return self._cast_before[i]

    def _cast(self, eye: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Depth (H, W), 0 beyond FARTHEST; what is hit, -1 = sky; and a texture fixed to the world."""
        u, v = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
        rays = np.stack([(u - self.camera.cx) / FOCAL, (v - self.camera.cy) / FOCAL, np.ones(u.shape)], -1).astype(
            np.float32
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(rays[..., 1] > 1e-6, (EYE - eye[1]) / rays[..., 1], np.inf)
            kind = np.where(np.isfinite(depth), 0, -1)
            for number, boxes in ((1, HOUSES), (2, CARS)):
                for low, high in boxes:
                    a, b = ((np.array(corner) - eye).astype(np.float32) / rays for corner in (low, high))
                    enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
                    hit = (enter < leave) & (enter > 0.1) & (enter < depth)
                    depth, kind = np.where(hit, enter, depth), np.where(hit, number, kind)
        depth = np.where(depth < FARTHEST, depth, 0)
        points = eye + rays * depth[..., None]
        texture = (
            25 * np.sin(3.1 * points[..., 0] + 1.7 * points[..., 2]) * np.sin(2.3 * points[..., 1] + points[..., 2])
        )
        return depth.astype(np.float32), kind, texture

    @staticmethod
    def distance(points: np.ndarray) -> np.ndarray:
        """(N,) metres from points (N, 3) to the nearest surface."""
        found = np.abs(points[:, 1] - EYE)
        for low, high in HOUSES + CARS:
            low, high = np.array(low), np.array(high)
            outside = np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=1)
            inside = np.minimum(points - low, high - points).min(axis=1)
            found = np.minimum(found, np.where(outside > 0, outside, np.maximum(inside, 0)))
        return found
