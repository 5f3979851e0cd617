"""Stray Scanner: rgb.mp4, depth/000000.png (mm), confidence/000000.png, camera_matrix.csv, odometry.csv.

Poses are camera to world in our axes (x right, y down, z forward), as the application writes them.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.files.reading import text_of
from semslam.images import CorruptFrame
from sequences.clock import seconds_or_count
from sequences.files import Folder, first_readable
from sequences.recordings.cameras.given_camera import camera_of_matrix, camera_of_numbers
from sequences.recordings.cameras.video_file import VideoFile
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.recordings.folder import images_by_name
from sequences.recordings.phones import arkit

LAYOUT = "rgb.mp4, depth/000000.png, confidence/000000.png, camera_matrix.csv, odometry.csv"
FPS = 60.0
FIRST_COLUMNS = ("x", "y", "z", "qx", "qy", "qz", "qw")


def fits(path: Path) -> bool:
    return (path / "rgb.mp4").is_file() and (path / "odometry.csv").is_file()


def open_stray_scanner(
    path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None
) -> DecodedSequence:
    """Open a recording: frame i of the video with line i of odometry.csv; depth of low confidence is left out."""
    path = Path(path)
    video = VideoFile(path / "rgb.mp4", upright=False)
    lines = zip(*_odometry(path / "odometry.csv"))
    filmed = [line for line in lines if line[0] < len(video.timestamps)]
    if not filmed:
        raise ValueError(f"{path / 'odometry.csv'}: has no line of the {len(video.timestamps)} frames of rgb.mp4")
    frames, ticks, T_world_camera, intrinsics = zip(*filmed)
    shared = _camera_matrix(path / "camera_matrix.csv", video)
    files = Folder(path)
    depth = images_by_name(path / "depth", (".png", ".npy"))
    depth_of = {int(name): f"depth/{file.name}" for name, file in depth.items() if name.isdecimal()}
    rig = Rig(shared if camera is None else camera)
    if depth_of:
        shape = first_readable(files.depth, depth_of.values()).shape
        rig = Rig(rig.color, rig.color.resized(shape[1], shape[0]))
    size = video.width, video.height
    own = [None if row is None or camera is not None else camera_of_numbers(*size, row) for row in intrinsics]
    return DecodedSequence(
        name=path.resolve().name,
        rig=rig,
        timestamps=seconds_or_count(np.array(ticks), FPS),
        read=partial(_read, video, files, (frames, depth_of, own), depth_scale or 1000.0),
        poses=T_world_camera,
    )


def _read(
    video: VideoFile,
    files: Folder,
    tables: tuple[Sequence[int], dict[int, str], Sequence[Camera | None]],
    depth_scale: float,
    index: int,
) -> Images:
    frames, depth_of, own = tables
    number = frames[index]
    depth = None
    if depth_of:
        if number not in depth_of:
            raise CorruptFrame(f"{files.path}/depth/{number:06d}.png: the file is missing", broken_file=True)
        depth = files.depth(depth_of[number], depth_scale)
        confidence = f"confidence/{number:06d}.png"
        if (files.path / confidence).is_file():
            depth = arkit.trusted(depth, files.units(confidence))
    return Images(video.frame(number), depth, camera=own[index])


def _odometry(path: Path) -> tuple[list[int], list[float], list[np.ndarray | None], list[list[float] | None]]:
    """Frame numbers, times, T_world_camera and, where the file has them, fx, fy, cx, cy of odometry.csv's lines."""
    frames: list[int] = []
    ticks: list[float] = []
    T_world_camera: list[np.ndarray | None] = []
    intrinsics: list[list[float] | None] = []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        headless = len(file.readline().split(",")) == len(FIRST_COLUMNS)  # as the first versions wrote it
        file.seek(0)
        names = FIRST_COLUMNS if headless else None
        for number, row in enumerate(csv.DictReader(file, names, skipinitialspace=True), start=1 if headless else 2):
            if headless:
                row |= {"frame": str(number - 1), "timestamp": str((number - 1) / FPS)}
            try:
                values = {key.strip(): float(value) for key, value in row.items() if key and value not in (None, "")}
                quaternion = np.array([values[key] for key in ("qx", "qy", "qz", "qw")])
                position = np.array([values[key] for key in ("x", "y", "z")])
                frames.append(int(values["frame"]))
                ticks.append(values["timestamp"])
            except (KeyError, TypeError, ValueError, AttributeError):
                raise ValueError(f"{path}:{number}: expected timestamp, frame, x, y, z, qx, qy, qz, qw") from None
            T = arkit.of_quaternion(quaternion, position)
            T_world_camera.append(T if poses.is_rigid(T) else None)
            keys = ("fx", "fy", "cx", "cy")
            intrinsics.append([values[key] for key in keys] if all(values.get(key) for key in keys) else None)
    if not frames:
        raise ValueError(f"{path}: holds no frames; expected a heading and a line per frame")
    return frames, ticks, T_world_camera, intrinsics


def _camera_matrix(path: Path, video: VideoFile) -> Camera:
    """camera_matrix.csv, which is of the video's size."""
    try:
        K = np.array(text_of(path).replace(",", " ").split(), np.float64).reshape(3, 3)
    except (OSError, ValueError):
        raise ValueError(f"{path}: expected the 3x3 matrix of the camera, a row a line, commas between") from None
    return camera_of_matrix(video.width, video.height, K)
