"""The folder that Open3D's recorders write and its reconstruction system reads: color/, depth/, a .log trajectory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.files.reading import text_of
from semslam.trajectory.files import read_open3d_log
from sequences.files import MALFORMED, reason
from sequences.pairing import in_order, paired
from sequences.pose_pairing import NO_HINTS, Frames, PoseHints, poses_of_frames
from sequences.recordings.folder import images_by_name
from sequences.recordings.sensor import NOTHING_SAID, SaidOfSensor, Usual, usual_readers
from sequences.sequence import ImageSequence

LAYOUT = "color/, depth/, and trajectory.log or camera_intrinsic.json, or both"
FPS = 30.0
PRIMESENSE = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)  # Open3D's default
COLOR_FOLDERS = ("color", "rgb", "image")
INTRINSICS = ("camera_intrinsic.json", "intrinsic.json", "camera.json")


def fits(path: Path) -> bool:
    if not (path / "depth").is_dir() or (path / "camera.yaml").exists():
        return False
    recorded = any((path / name).is_file() for name in INTRINSICS) and any((path / c).is_dir() for c in COLOR_FOLDERS)
    return recorded or _log(path) is not None


def open_open3d(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
    fps: float | None = None,
    hints: PoseHints = NO_HINTS,
) -> ImageSequence:
    """Open an Open3D folder: depth in millimetres, registered; frames without a pose in the log have none.

    The log's frame numbers are those of the images' names or, where that fits more poses, count the images from 0.
    """
    path = Path(path)
    folder = next((path / name for name in COLOR_FOLDERS if (path / name).is_dir()), path / "color")
    color, depth = images_by_name(folder), images_by_name(path / "depth")
    if not color or not depth:
        raise ValueError(f"{path}: {len(color)} files in {folder.name}/ and {len(depth)} in depth/; expected pairs")
    depth, notes = paired(path, color, depth)
    names = in_order([name for name in color if name in depth])
    timestamps = np.arange(len(names)) / (fps or FPS)
    poses: tuple[np.ndarray | None, ...] | None = None
    pose_notes: tuple[str, ...] = ()
    if (log := _log(path)) is not None:
        poses, pose_notes, _ = poses_of_frames(read_open3d_log(log), log, Frames(timestamps, names), hints)
    recorded, whose = (said.camera, None) if said.camera is not None else _camera(path)
    usual = Usual(recorded, whose, 1000.0)
    readers, assumed = usual_readers(path, color.values(), depth.values(), usual, said)
    return ImageSequence(
        name=path.resolve().name,
        timestamps=timestamps,
        color_paths=tuple(color[name] for name in names),
        depth_paths=tuple(depth[name] for name in names),
        poses=poses,
        assumptions=(*assumed, *notes, *pose_notes),
        **readers,
    )


def _log(path: Path) -> Path | None:
    """The trajectory: trajectory.log, the one that the reconstruction system writes, or the only .log there is."""
    for name in ("trajectory.log", "scene/trajectory.log"):
        if (path / name).is_file():
            return path / name
    logs = list(path.glob("*.log"))
    return logs[0] if len(logs) == 1 else None


def _camera(path: Path) -> tuple[Camera, str | None]:
    """The camera of Open3D's JSON, whose 3x3 matrix is written column by column, else another, and whose that is."""
    for name in INTRINSICS:
        if (path / name).is_file():
            try:
                values = json.loads(text_of(path / name))
                K = np.array(values["intrinsic_matrix"], np.float64).reshape(3, 3).T
                width, height = int(values["width"]), int(values["height"])
                return Camera(width, height, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])), None
            except MALFORMED as problem:
                raise ValueError(
                    f"{path / name}: expected Open3D's width, height and intrinsic_matrix ({reason(problem)})"
                ) from None
    return PRIMESENSE, "Open3D's PrimeSense, as there is no camera_intrinsic.json"
