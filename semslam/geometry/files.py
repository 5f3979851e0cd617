"""Surfaces from files that any program may have written: meshes with their triangles, clouds with their points."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from semslam.geometry.obj import read_obj
from semslam.geometry.open3d_reader import read_by_open3d
from semslam.geometry.ply import read_ply

logger = logging.getLogger(__name__)


def read_surface(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Points or vertices (N, 3), float32 or, where the file has them, float64, and triangles (M, 3), none for a cloud.

    PLY and OBJ are read here, everything else (STL, OFF, GLB, PCD, XYZ) by Open3D. Points that are not finite are left
    out, with the triangles that they are corners of, and a warning counts them. ValueError where a file holds no
    points, FileNotFoundError where there is none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected a mesh or a point cloud")
    suffix = path.suffix.lower()
    if suffix == ".ply":
        values, triangles, _ = read_ply(path)
        if not {"x", "y", "z"} <= values.keys():
            raise ValueError(f"{path}: its vertices have no x, y and z; expected a mesh or a point cloud")
        points = np.column_stack([values[name] for name in ("x", "y", "z")])
    elif suffix == ".obj":
        points, triangles = read_obj(path)
    else:
        points, triangles = read_by_open3d(path)
    points = points.astype(np.result_type(points, np.float32))
    triangles = np.zeros((0, 3), np.int32) if triangles is None else triangles.astype(np.int32)
    finite = np.isfinite(points).all(axis=1)
    if not finite.all():
        logger.warning("%s: %d of %d points are not finite; they are left out", path, (~finite).sum(), len(points))
        triangles = (np.cumsum(finite) - 1)[triangles[finite[triangles].all(axis=1)]].astype(np.int32)
        points = points[finite]
    if len(points) == 0:
        raise ValueError(f"{path}: holds no points; expected a mesh or a point cloud")
    return points, triangles
