"""EuRoC MAV and what is laid out like it: mav0/cam0/ with data.csv, data/ and sensor.yaml; grey images, no depth.

Burri et al., "The EuRoC micro aerial vehicle datasets", IJRR 2016. The truth is the body's pose: T_BS of the camera's
sensor.yaml takes it to the camera.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from semslam import images, poses
from semslam.camera import Camera, is_fisheye
from semslam.files.reading import text_of
from semslam.trajectory import Trajectory
from semslam.trajectory.files import read_euroc
from sequences.clock import seconds
from sequences.pose_pairing import poses_at
from sequences.recordings.cameras.given_camera import camera_of_numbers
from sequences.recordings.decoded import DecodedSequence, Images, Rig

LAYOUT = "mav0/cam0/ with data.csv (time, file), data/ and sensor.yaml; mav0/state_groundtruth_estimate0/data.csv"
TRUTHS = ("state_groundtruth_estimate0", "mocap0", "vicon0", "gt0")


def fits(path: Path) -> bool:
    return (_mav(path) / "cam0" / "data").is_dir() and (_mav(path) / "cam0" / "data.csv").is_file()


def open_euroc(path: str | Path, *, camera: Camera | None = None) -> DecodedSequence:
    """Open a recording's folder, or its mav0: the left camera's images, undistorted, with interpolated poses."""
    path = Path(path)
    mav = _mav(path)
    ticks, files = _listed(mav / "cam0")
    recorded, T_body_camera = read_sensor(mav / "cam0" / "sensor.yaml", camera)
    truth = next((mav / name / "data.csv" for name in TRUTHS if (mav / name / "data.csv").is_file()), None)
    times = seconds(ticks)
    body = None if truth is None else read_euroc(truth)
    found = None
    if truth is not None and body is not None:
        found = poses_at(Trajectory(body.timestamps, body.T_world_camera @ T_body_camera), truth, times)
    return DecodedSequence(
        name=path.resolve().name,
        rig=Rig(recorded),
        timestamps=times,
        read=partial(_read, files, images.ColorReader(tuple(files))),
        poses=None if found is None else found.T_world_camera,
        assumptions=() if found is None else found.notes,
    )


def _read(files: list[Path], read_color: images.ColorReader, index: int) -> Images:
    return Images(read_color(files[index]))


def _mav(path: Path) -> Path:
    return path / "mav0" if (path / "mav0").is_dir() else path


def _listed(folder: Path) -> tuple[np.ndarray, list[Path]]:
    entries = []
    for number, line in enumerate(text_of(folder / "data.csv").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        time, _, name = (part.strip() for part in line.partition(","))
        if not time.isdecimal() or len(time) > 19 or not name or "/" in name or "\\" in name:
            raise ValueError(f"{folder / 'data.csv'}:{number}: '{line[:60]}' is not 'nanoseconds,file'")
        entries.append((int(time), folder / "data" / name))
    if not entries:
        raise ValueError(f"{folder / 'data.csv'}: lists no images")
    entries.sort()
    return np.array([time for time, _ in entries]), [file for _, file in entries]


def read_sensor(path: Path, camera: Camera | None) -> tuple[Camera, np.ndarray]:
    """The camera of a sensor.yaml (`camera` where given) and T_body_camera (4, 4)."""
    import yaml

    try:
        lines = text_of(path).splitlines()
        values = yaml.safe_load("\n".join(line for line in lines if not line.startswith("%")))
        T = np.array(values["T_BS"]["data"], np.float64).reshape(4, 4) if "T_BS" in values else np.eye(4)
        if camera is None:
            width, height = (int(n) for n in values["resolution"])
            distortion = tuple(float(x) for x in values.get("distortion_coefficients") or ())
            camera = replace(
                camera_of_numbers(width, height, values["intrinsics"]),
                distortion=distortion if any(distortion) else None,
                fisheye=any(distortion) and is_fisheye(str(values.get("distortion_model", "none"))),
            )
    except (OSError, KeyError, TypeError, ValueError, AttributeError, yaml.YAMLError, RecursionError) as problem:
        raise ValueError(f"{path}: not a camera's sensor.yaml: {' '.join(str(problem).split())[:160]}") from None
    if not poses.is_rigid(T):
        raise ValueError(f"{path}: T_BS is no rigid transform")
    return camera, poses.orthonormalized(T)
