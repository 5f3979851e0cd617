"""Surfaces that Open3D reads, in a process of its own: damaged files crash its readers, and may claim any size.

Run as `python -m semslam.geometry.open3d_reader FILE OUT.npz`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

CLOUDS = (".pcd", ".xyz", ".xyzn", ".xyzrgb", ".pts")
SECONDS = 300  # that a file may take
ROOM = 8 << 30  # bytes of addresses that the process may use, besides 30 times the file's size


def read_by_open3d(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 3) float64 and triangles (M, 3) int32, none for a cloud; ValueError where Open3D finds no points."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "surface.npz"
        command = [sys.executable, "-m", "semslam.geometry.open3d_reader", str(path.absolute()), str(out)]
        roots = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, roots))}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=SECONDS, check=False)
            failed = done.returncode != 0
        except subprocess.TimeoutExpired:
            failed = True
        if failed or not out.is_file():
            raise ValueError(f"{path}: Open3D cannot read it; is it a mesh or a point cloud, and whole?")
        with np.load(out, allow_pickle=False) as found:
            points, triangles = found["points"], found["triangles"]
    if len(points) == 0:
        raise ValueError(f"{path}: holds no points that Open3D can read; expected a mesh or a point cloud")
    return points, triangles


def _read(path: Path, out: Path) -> None:
    with suppress(ImportError):  # Windows has no such limit
        import resource

        limit = ROOM + 30 * path.stat().st_size
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    import open3d as o3d

    triangles = np.zeros((0, 3), np.int32)
    if path.suffix.lower() not in CLOUDS:
        mesh = o3d.io.read_triangle_mesh(str(path))
        points, triangles = np.asarray(mesh.vertices), np.asarray(mesh.triangles)
    if len(triangles) == 0:
        points = np.asarray(o3d.io.read_point_cloud(str(path)).points)
    np.savez(out, points=points, triangles=triangles)


if __name__ == "__main__":
    _read(Path(sys.argv[1]), Path(sys.argv[2]))
