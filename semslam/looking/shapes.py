"""What Open3D draws of a map: surfels as points or disks, the camera's path, its frusta."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.frame import evenly_spread
from semslam.poses import transform
from semslam.rendering.pictures import PATH_COLOR

FRUSTUM_EVERY, MOST_FRUSTA = 15, 400  # frames: half a second of most recordings; more in long ones


def surfel_quads(cloud: SurfelCloud) -> tuple[np.ndarray, np.ndarray]:
    """Every surfel as a square as large as its disk: vertices (4N, 3) float64 and triangles (2N, 3) int32."""
    n = cloud.normals.astype(np.float64)
    side = np.where(np.abs(n[:, :1]) < 0.6, [[1.0, 0, 0]], [[0, 1.0, 0]])
    u = np.cross(side, n)
    u /= np.maximum(np.linalg.norm(u, axis=1, keepdims=True), 1e-12)
    v = np.cross(n, u)
    half = cloud.radii.astype(np.float64)[:, None] * np.sqrt(np.pi) / 2
    corners = [cloud.positions + half * (a * u + b * v) for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    first = np.arange(len(cloud), dtype=np.int32)[:, None] * 4
    triangles = np.stack([first + [0, 1, 2], first + [0, 2, 3]], axis=1)
    return np.stack(corners, axis=1).reshape(-1, 3), triangles.reshape(-1, 3).astype(np.int32)


def frustum_lines(camera: Camera, T_world_camera: np.ndarray, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """World points (5, 3) and line indices (8, 2) of a camera's pyramid, so many metres deep."""
    corners = np.array([[0, 0], [camera.width, 0], [camera.width, camera.height], [0, camera.height]], np.float64) - 0.5
    rays = np.column_stack(
        [(corners[:, 0] - camera.cx) / camera.fx, (corners[:, 1] - camera.cy) / camera.fy, np.ones(4)]
    )
    points = transform(T_world_camera, np.vstack([np.zeros(3), rays * depth]))
    return points, np.array([[0, 1], [0, 2], [0, 3], [0, 4], [1, 2], [2, 3], [3, 4], [4, 1]])


def surfel_shapes(cloud: SurfelCloud, colors: np.ndarray, disks: bool) -> list[Any]:
    """Surfels in colours (N, 3) uint8 as Open3D draws them: disks that are seen from their fronts, or points.

    An empty map has no shape: Open3D warns of those without points.
    """
    import open3d as o3d

    if len(cloud) == 0:
        return []
    fractions = colors.astype(np.float64) / 255
    if disks:
        vertices, triangles = surfel_quads(cloud)
        mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(vertices), o3d.utility.Vector3iVector(triangles))
        mesh.vertex_colors = o3d.utility.Vector3dVector(np.repeat(fractions, 4, axis=0))
        return [mesh]
    points = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(cloud.positions.astype(np.float64)))
    points.colors = o3d.utility.Vector3dVector(fractions)
    return [points]


def path_shapes(paths: Sequence[np.ndarray]) -> list[Any]:
    """Paths of poses, each (N, 4, 4) T_world_camera, as lines."""
    counts = [np.arange(len(path) - 1) for path in paths]
    return [
        _lines(path[:, :3, 3], np.column_stack([count, count + 1])) for path, count in zip(paths, counts) if len(count)
    ]


def frustum_shapes(camera: Camera, trajectory: np.ndarray, depth: float) -> list[Any]:
    """A frustum at every FRUSTUM_EVERY-th of the poses (N, 4, 4), of long paths at MOST_FRUSTA of them."""
    shown = evenly_spread(list(trajectory[::FRUSTUM_EVERY]), MOST_FRUSTA)
    return [_lines(*frustum_lines(camera, T, depth)) for T in shown]


def _lines(points: np.ndarray, pairs: np.ndarray) -> Any:
    import open3d as o3d

    lines = o3d.geometry.LineSet(
        o3d.utility.Vector3dVector(np.ascontiguousarray(points, np.float64)),
        o3d.utility.Vector2iVector(np.ascontiguousarray(pairs, np.int32)),
    )
    lines.paint_uniform_color(np.array(PATH_COLOR) / 255)
    return lines
