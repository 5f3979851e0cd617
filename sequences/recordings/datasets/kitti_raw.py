"""KITTI's raw recordings: DATE/DATE_drive_NNNN_sync with image_02/, image_03/, velodyne_points/, oxts/.

The calibration lies in the folder of the date. Poses follow from the GPS and IMU of oxts/ by the development kit's
Mercator projection. Geiger et al., "Vision meets robotics: the KITTI dataset", IJRR 2013.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import images, poses
from semslam.camera import Camera
from semslam.files.reading import names_of
from sequences.files import first_readable
from sequences.recordings.cameras.given_camera import camera_of_matrix
from sequences.recordings.datasets.outdoor_depth import DepthOf, of_lidar, of_stereo, read_frame
from sequences.recordings.decoded import DecodedSequence, Rig
from sequences.recordings.folder import images_by_name

LAYOUT = (
    "DATE_drive_NNNN_sync/ with image_02/data/, image_03/data/ or velodyne_points/data/, oxts/data/; calib_*.txt above"
)
FPS = 10.0
EARTH_RADIUS = 6378137.0  # metres
EYES = {"02": "03", "00": "01"}  # left: right


def fits(path: Path) -> bool:
    return any((path / f"image_{eye}" / "data").is_dir() for eye in EYES)


def open_kitti_raw(path: str | Path, *, camera: Camera | None = None) -> DecodedSequence:
    """Open a synchronised drive: the left colour camera, else the left grey one; depth from lidar, else from stereo."""
    path = Path(path)
    eye = next(eye for eye in EYES if (path / f"image_{eye}" / "data").is_dir())
    files = images_by_name(path / f"image_{eye}" / "data")
    if not files:
        raise ValueError(f"{path}: image_{eye}/data holds no images; expected {LAYOUT}")
    cameras = _calibration(path, "calib_cam_to_cam.txt")
    P = _matrix(cameras, f"P_rect_{eye}", (3, 4), path)
    height, width = first_readable(images.read_color, files.values()).shape[:2]
    recorded = camera_of_matrix(width, height, P)
    T_camera_0 = poses.from_rotation_translation(np.eye(3), np.linalg.solve(P[:, :3], P[:, 3]))
    T_0_reference = poses.from_rotation_translation(_matrix(cameras, "R_rect_00", (3, 3), path), np.zeros(3))
    right = images_by_name(path / f"image_{EYES[eye]}" / "data")
    depth: DepthOf | None = None
    sensor = None
    if (path / "velodyne_points" / "data").is_dir():
        T_camera_lidar = T_camera_0 @ T_0_reference @ _rigid(path, "calib_velo_to_cam.txt")
        sensor = "survey-lidar"
        depth = partial(of_lidar, path / "velodyne_points" / "data", recorded, T_camera_lidar)
    elif right:
        baseline = (P[0, 3] - _matrix(cameras, f"P_rect_{EYES[eye]}", (3, 4), path)[0, 3]) / P[0, 0]
        sensor = "stereo"
        depth = partial(of_stereo, right, recorded.fx * float(baseline))
    T_world_camera = None
    if (path / "oxts" / "data").is_dir():
        T_camera_imu = (
            T_camera_0 @ T_0_reference @ _rigid(path, "calib_velo_to_cam.txt") @ _rigid(path, "calib_imu_to_velo.txt")
        )
        T_world_camera = _poses(path / "oxts" / "data", list(files), poses.inverse(T_camera_imu))
    return DecodedSequence(
        name=path.resolve().name,
        rig=Rig(recorded if camera is None else camera, None if depth is None else recorded),
        timestamps=_times(path / f"image_{eye}" / "timestamps.txt", list(files)),
        read=partial(read_frame, list(files.values()), depth),
        poses=T_world_camera,
        sensor=sensor,
    )


def _calibration(path: Path, name: str) -> dict[str, np.ndarray]:
    """The lists of numbers of a calibration file, which lies in the folder above the drive's or in it."""
    file = next((p / name for p in (path.resolve().parent, path) if (p / name).is_file()), None)
    if file is None:
        raise ValueError(f"{path}: {name} is neither in it nor in the folder above; copy the date's calibration there")
    found = {}
    for line in names_of(file).splitlines():
        key, _, values = line.partition(":")
        try:
            found[key.strip()] = np.array(values.split(), np.float64)
        except ValueError:
            continue
    return found


def _matrix(values: dict[str, np.ndarray], key: str, shape: tuple[int, int], path: Path) -> np.ndarray:
    if key not in values or values[key].size != shape[0] * shape[1]:
        raise ValueError(f"{path}: the calibration lacks {key} of {shape[0]}x{shape[1]} numbers")
    return values[key].reshape(shape)


def _rigid(path: Path, name: str) -> np.ndarray:
    values = _calibration(path, name)
    return poses.from_rotation_translation(_matrix(values, "R", (3, 3), path), _matrix(values, "T", (3, 1), path)[:, 0])


def _times(path: Path, names: list[str]) -> np.ndarray:
    """Seconds of the frames, their dates taken for UTC's; their numbers at 10 Hz where timestamps.txt does not fit."""
    numbers = np.array([int(name) if name.isdecimal() else i for i, name in enumerate(names)])
    if path.is_file():
        lines = names_of(path).split("\n")
        try:
            moments = [datetime.fromisoformat(lines[n].strip()[:26]).replace(tzinfo=UTC) for n in numbers]
        except (ValueError, IndexError):
            raise ValueError(f"{path}: expected a line 'date time' for every image") from None
        times = np.array([moment.timestamp() for moment in moments])
        if np.all(np.diff(times) > 0):
            return times
    return numbers / FPS


def _poses(folder: Path, names: list[str], T_imu_camera: np.ndarray) -> tuple[np.ndarray | None, ...]:
    """T_world_camera of each frame, the world being that of the first frame's IMU: x forward, y left, z up."""
    scale, T_first_world = None, None
    found: list[np.ndarray | None] = []
    for name in names:
        file = folder / f"{name}.txt"
        if not file.is_file():
            found.append(None)
            continue
        try:
            numbers = [float(word) for word in names_of(file).split()[:6]]
            latitude, longitude, altitude, roll, pitch, yaw = numbers
            if not np.all(np.isfinite(numbers)) or abs(latitude) >= 90:
                raise ValueError
        except ValueError:
            raise ValueError(f"{file}: expected latitude longitude altitude roll pitch yaw ...") from None
        scale = math.cos(math.radians(latitude)) if scale is None else scale
        east = scale * EARTH_RADIUS * math.radians(longitude)
        north = scale * EARTH_RADIUS * math.log(math.tan(math.pi / 4 + math.radians(latitude) / 2))
        rotation = Rotation.from_euler("ZYX", [yaw, pitch, roll]).as_matrix()
        T = poses.from_rotation_translation(rotation, np.array([east, north, altitude]))
        T_first_world = poses.inverse(T) if T_first_world is None else T_first_world
        found.append(T_first_world @ T @ T_imu_camera)
    return tuple(found)
