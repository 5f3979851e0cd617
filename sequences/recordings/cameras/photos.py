"""A photograph, or a folder of photographs or of a video's frames, colour alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.images import COLOR_SUFFIXES
from sequences.files import first_readable
from sequences.recordings.cameras.given_camera import exif_focal, given_camera
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.recordings.folder import images_by_name

LAYOUT = "an image, or NAME.jpg or NAME.png and little else; camera.yaml, EXIF's focal length or --fov DEGREES"
FPS = 30.0
FEWEST = 2


def fits(path: Path) -> bool:
    if path.is_file():
        return path.suffix.lower() in COLOR_SUFFIXES
    if not path.is_dir() or (path / "color").is_dir():
        return False
    files = [file for file in path.iterdir() if not file.name.startswith(".")]
    photos = sum(file.suffix.lower() in COLOR_SUFFIXES for file in files)
    return photos >= FEWEST and 2 * photos > len(files)  # a run's folder holds some pictures among other things


def open_photos(path: str | Path, *, camera: Camera | None = None, fov: float | None = None) -> DecodedSequence:
    """Open an image, or a folder of images in the order of their numbers, 30 a second; there is no depth."""
    path = Path(path)
    files = [path] if path.is_file() else list(images_by_name(path).values())
    read_color = images.ColorReader(tuple(files), upright=True)  # as the photographer held the camera
    height, width = first_readable(read_color, files).shape[:2]
    return DecodedSequence(
        name=path.resolve().name,
        rig=Rig(given_camera(path, width, height, camera, fov, exif_focal(files[0], max(width, height)))),
        timestamps=np.arange(len(files)) / FPS,
        read=partial(_read, files, read_color),
        names=tuple(file.name for file in files),
    )


def _read(files: list[Path], read_color: images.ColorReader, index: int) -> Images:
    return Images(read_color(files[index]))
