"""The folder that Open3D's reconstruction system reads: color/, depth/, a .log trajectory."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.trajectory import read_open3d_log
from sequences.recordings.folder import images_by_name
from sequences.sequence import ImageSequence

LAYOUT = "color/, depth/, trajectory.log, camera_intrinsic.json (optional)"
FPS = 30.0
PRIMESENSE = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)  # Open3D's default
COLOR_FOLDERS = ("color", "rgb", "image")


def fits(path: Path) -> bool:
    return (path / "depth").is_dir() and not (path / "camera.yaml").exists() and _log(path) is not None


def open_open3d(path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None) -> ImageSequence:
    """Open an Open3D folder: depth in millimetres, registered; frames without a pose in the log have none."""
    path = Path(path)
    folder = next((path / name for name in COLOR_FOLDERS if (path / name).is_dir()), path / "color")
    color, depth = list(images_by_name(folder).values()), list(images_by_name(path / "depth").values())
    if len(color) != len(depth) or not color:
        raise ValueError(f"{path}: {len(color)} files in {folder.name}/ and {len(depth)} in depth/; expected pairs")
    poses: list[np.ndarray | None] | None = None
    if (log := _log(path)) is not None:
        trajectory = read_open3d_log(log, fps=1.0)
        if len(trajectory) > len(color):
            raise ValueError(f"{log}: {len(trajectory)} poses for {len(color)} frames; expected one a frame at most")
        poses = [None] * len(color)
        for number, T in zip(trajectory.timestamps, trajectory.T_world_camera):
            poses[round(number)] = T
    return ImageSequence(
        name=path.resolve().name,
        camera=_camera(path) if camera is None else camera,
        timestamps=np.arange(len(color)) / FPS,
        color_paths=tuple(color),
        depth_paths=tuple(depth),
        poses=None if poses is None else tuple(poses),
        read_depth=partial(images.read_depth, depth_scale=depth_scale or 1000.0),
    )


def _log(path: Path) -> Path | None:
    """The trajectory: trajectory.log, the one that the reconstruction system writes, or the only .log there is."""
    for name in ("trajectory.log", "scene/trajectory.log"):
        if (path / name).is_file():
            return path / name
    logs = list(path.glob("*.log"))
    return logs[0] if len(logs) == 1 else None


def _camera(path: Path) -> Camera:
    """The camera of Open3D's JSON, whose 3x3 matrix is written column by column."""
    for name in ("camera_intrinsic.json", "intrinsic.json", "camera.json"):
        if (path / name).is_file():
            try:
                values = json.loads((path / name).read_text(encoding="utf-8"))
                K = np.array(values["intrinsic_matrix"], np.float64).reshape(3, 3).T
                width, height = int(values["width"]), int(values["height"])
                return Camera(width, height, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))
            except (KeyError, TypeError, ValueError) as problem:
                raise ValueError(
                    f"{path / name}: not an intrinsic as Open3D writes it (width, height, intrinsic_matrix): {problem}"
                ) from None
    return PRIMESENSE
