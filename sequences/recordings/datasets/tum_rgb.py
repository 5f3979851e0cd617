"""TUM's layout with colour alone: rgb.txt and its images, groundtruth.txt; no depth.txt."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.trajectory.files import read_trajectory
from sequences.files import first_readable
from sequences.pose_pairing import NO_HINTS, Frames, PoseHints, poses_of_frames
from sequences.recordings import tum
from sequences.recordings.cameras.given_camera import given_camera
from sequences.recordings.decoded import DecodedSequence, Images, Rig

LAYOUT = "rgb.txt (timestamp file), groundtruth.txt; camera.yaml, or freiburg1..3 in the folder's name"


def fits(path: Path) -> bool:
    return (path / "rgb.txt").is_file() and not (path / "depth.txt").is_file()


def open_tum_rgb(
    path: str | Path,
    *,
    camera: Camera | None = None,
    fov: float | None = None,
    hints: PoseHints = NO_HINTS,
) -> DecodedSequence:
    """Open a folder of colour images; the camera is given, or TUM's where the folder's name says which."""
    path = Path(path)
    times, files, of_order = tum.images_listed(path / "rgb.txt")
    height, width = first_readable(images.read_color, files).shape[:2]
    notes = tuple(of_order)
    if camera is None and fov is None and (named := tum.camera_of_name(path)) is not None:
        camera, notes = named, (*notes, f"{path}: by its name this is a freiburg camera of TUM")
    truth = path / "groundtruth.txt"
    frames = Frames(times, [file.name for file in files])
    found = poses_of_frames(read_trajectory(truth), truth, frames, hints) if truth.is_file() else None
    return DecodedSequence(
        name=path.resolve().name,
        rig=Rig(given_camera(path, width, height, camera, fov)),
        timestamps=np.asarray(times),
        read=partial(_read, files, images.ColorReader(tuple(files))),
        poses=None if found is None else found.T_world_camera,
        assumptions=notes if found is None else (*notes, *found.notes),
    )


def _read(files: list[Path], read_color: images.ColorReader, index: int) -> Images:
    return Images(read_color(files[index]))
