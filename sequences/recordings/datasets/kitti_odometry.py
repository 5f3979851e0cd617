"""KITTI odometry: image_0 .. image_3, calib.txt, times.txt, poses beside or in ../../poses; depth from stereo or lidar.

Geiger, Lenz and Urtasun, "Are we ready for autonomous driving?", CVPR 2012. Poses are those of camera 0.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semslam import images, poses
from semslam.camera import Camera
from semslam.files.reading import names_of
from semslam.trajectory.files import read_kitti
from sequences.files import first_readable
from sequences.pairing import frame_number
from sequences.recordings.cameras.given_camera import camera_of_matrix
from sequences.recordings.datasets.outdoor_depth import DepthOf, of_lidar, of_stereo, read_frame
from sequences.recordings.decoded import DecodedSequence, Rig
from sequences.recordings.folder import images_by_name

LAYOUT = "image_2/ or image_0/ (000000.png ...), calib.txt (P0: ... P3:, Tr:), times.txt, poses.txt, velodyne/"
FPS = 10.0
EYES = {"image_2": "image_3", "image_0": "image_1"}  # left: right


def fits(path: Path) -> bool:
    return (path / "calib.txt").is_file() and any((path / left).is_dir() for left in EYES)


def open_kitti_odometry(path: str | Path, *, camera: Camera | None = None) -> DecodedSequence:
    """Open a sequence's folder: colour (image_2) where it is there, else grey (image_0).

    Depth is the lidar's where velodyne/ is there (sparse), else that of the stereo pair where the right images are,
    else there is none. Poses come from poses.txt in the folder or from ../../poses/NN.txt, line i for image i.
    """
    path = Path(path)
    left = next(name for name in EYES if (path / name).is_dir())
    files = images_by_name(path / left)
    if not files:
        raise ValueError(f"{path / left}: holds no images; expected {LAYOUT}")
    numbers = [frame_number(file, LAYOUT) for file in files.values()]
    matrices = _calibration(path / "calib.txt")
    P = _projection(path, matrices, left)
    height, width = first_readable(images.read_color, files.values()).shape[:2]
    recorded = camera_of_matrix(width, height, P)
    # P = K [I | t]: this camera sees a point of camera 0 shifted by t.
    T_camera_0 = poses.from_rotation_translation(np.eye(3), np.linalg.solve(P[:, :3], P[:, 3]))
    right = images_by_name(path / EYES[left])
    depth: DepthOf | None = None
    sensor = None
    if (path / "velodyne").is_dir():
        if "Tr" not in matrices:
            raise ValueError(f"{path / 'calib.txt'}: lacks Tr, from the lidar to camera 0; add it, or remove velodyne/")
        T_0_lidar = np.vstack([matrices["Tr"], [0, 0, 0, 1]])
        sensor = "survey-lidar"
        depth = partial(of_lidar, path / "velodyne", recorded, T_camera_0 @ T_0_lidar)
    elif right:
        baseline = (P[0, 3] - _projection(path, matrices, EYES[left])[0, 3]) / P[0, 0]
        sensor = "stereo"
        depth = partial(of_stereo, right, recorded.fx * float(baseline))
    T_world_0 = _poses(path)
    return DecodedSequence(
        name=path.resolve().name,
        rig=Rig(recorded if camera is None else camera, None if depth is None else recorded),
        timestamps=_times(path / "times.txt", numbers),
        read=partial(read_frame, list(files.values()), depth),
        poses=None
        if T_world_0 is None
        else tuple(T_world_0[i] @ poses.inverse(T_camera_0) if i in T_world_0 else None for i in numbers),
        sensor=sensor,
    )


def _calibration(path: Path) -> dict[str, np.ndarray]:
    """The (3, 4) matrices of a calib.txt by name; lines without names are P0, P1, ... in order."""
    matrices = {}
    for number, line in enumerate(names_of(path).splitlines()):
        name, colon, values = line.rpartition(":")
        try:
            numbers = np.array(values.split(), np.float64)
        except ValueError:
            continue
        if len(numbers) == 12 and np.all(np.isfinite(numbers)):
            matrices[name.strip() if colon else f"P{number}"] = numbers.reshape(3, 4)
    if not matrices:
        raise ValueError(f"{path}: holds no line of 12 numbers; expected P0: ... P3:, 3x4 projections row by row")
    return matrices


def _projection(path: Path, matrices: dict[str, np.ndarray], folder: str) -> np.ndarray:
    name = f"P{folder[-1]}"
    if name not in matrices:
        raise ValueError(
            f"{path / 'calib.txt'}: lacks {name}, the projection of {folder}; it has {', '.join(matrices)}"
        )
    return matrices[name]


def _times(path: Path, numbers: list[int]) -> np.ndarray:
    """Seconds of the frames of those numbers: times.txt's, or 10 a second."""
    if not path.is_file():
        return np.array(numbers) / FPS
    try:
        times = np.array(names_of(path).split(), np.float64)
        if not np.all(np.isfinite(times)):
            raise ValueError
    except ValueError:
        raise ValueError(f"{path}: expected one time in seconds per line") from None
    if len(times) <= max(numbers):
        raise ValueError(f"{path}: {len(times)} times, but there is an image of number {max(numbers)}")
    return times[numbers]


def _poses(path: Path) -> dict[int, np.ndarray] | None:
    """T_world_0 (4, 4) by frame number; None where there is no file."""
    resolved = path.resolve()
    for file in (path / "poses.txt", resolved.parents[1] / "poses" / f"{resolved.name}.txt"):
        if file.is_file():
            return dict(enumerate(read_kitti(file, fps=1.0).T_world_camera))
    return None
