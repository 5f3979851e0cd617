"""Distances from any place to a surface, and what a camera sees of it, by Embree's tree of boxes (through Open3D)."""

from __future__ import annotations

from typing import Any

import numpy as np

from semslam.camera import Camera


class Surface:
    """Triangles, or points, that distances are measured to. Exact at any extent, near the surface and far from it.

    A k-d tree is as fast near a surface, but takes a hundred times as long where very many points are nearly the
    nearest. A point is a triangle whose corners coincide. Embree counts in float32: places are counted from the middle
    of the surface, or from where it is said, so that a distance is right to a ten-millionth of itself wherever the
    world's origin lies.
    """

    def __init__(
        self, vertices: np.ndarray, triangles: np.ndarray | None = None, middle: np.ndarray | None = None
    ) -> None:
        """vertices: (N, 3) metres, finite. triangles: (M, 3) indices of vertices; None = each vertex is a point.
        middle: (3,) from where places are counted."""
        import open3d as o3d

        if middle is None:
            middle = np.median(vertices, axis=0).astype(np.float64) if len(vertices) else np.zeros(3)
        self._middle = middle
        if triangles is None:
            triangles = np.repeat(np.arange(len(vertices)), 3).reshape(-1, 3)
        self._empty = len(triangles) == 0
        self._scene: Any = o3d.t.geometry.RaycastingScene()
        if not self._empty:
            corners = np.ascontiguousarray(triangles, np.uint32)
            self._scene.add_triangles(o3d.core.Tensor(self._local(vertices)), o3d.core.Tensor(corners))

    def _local(self, points: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(points - self._middle, np.float32)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """(N,) float32 metres from world points (N, 3) to the nearest place of the surface; inf where it is empty."""
        import open3d as o3d

        if self._empty or len(points) == 0:
            return np.full(len(points), np.inf, np.float32)
        return self._scene.compute_distance(o3d.core.Tensor(self._local(points))).numpy()

    def depth(self, camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
        """(H, W) float32 metres along z through the pixels' centres, 0 where a ray meets no triangle."""
        import open3d as o3d

        directions = camera.backproject(np.ones(camera.shape)) @ T_world_camera[:3, :3].T  # z = 1: t_hit is depth
        origins = np.broadcast_to(self._local(T_world_camera[:3, 3]), directions.shape)
        rays = np.concatenate([origins, directions], axis=-1).astype(np.float32)
        hit = self._scene.cast_rays(o3d.core.Tensor(rays))["t_hit"].numpy()
        return np.where(np.isfinite(hit), hit, np.float32(0))
