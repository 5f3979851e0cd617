"""Surfaces from files that any program may have written: meshes with their triangles, clouds with their points."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semslam.geometry.ply import read_ply


def read_surface(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Points or vertices (N, 3) float32 and triangles (M, 3) int32, none for a cloud.

    Binary PLY is read here, everything else (text PLY, OBJ, STL, GLB, PCD, XYZ) by Open3D. ValueError where a file
    holds no points.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a mesh or a point cloud")
    if path.suffix.lower() == ".ply":
        try:
            values, triangles, _ = read_ply(path)
        except ValueError:  # text, big endian or polygons
            return _by_open3d(path)
        if {"x", "y", "z"} <= values.keys() and len(values["x"]):
            points = np.column_stack([values[name] for name in ("x", "y", "z")]).astype(np.float32)
            return points, np.zeros((0, 3), np.int32) if triangles is None else triangles
    return _by_open3d(path)


def _by_open3d(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import open3d as o3d

    with o3d.utility.VerbosityContextManager(o3d.utility.VerbosityLevel.Error):
        triangles = np.zeros((0, 3), np.int32)
        if path.suffix.lower() not in (".pcd", ".xyz", ".xyzn", ".xyzrgb", ".pts"):
            mesh = o3d.io.read_triangle_mesh(str(path))
            points, triangles = np.asarray(mesh.vertices), np.asarray(mesh.triangles)
        if len(triangles) == 0:
            points = np.asarray(o3d.io.read_point_cloud(str(path)).points)
    if len(points) == 0:
        raise ValueError(f"{path}: holds no points that Open3D can read; expected a mesh or a point cloud")
    return points.astype(np.float32), triangles.astype(np.int32)
