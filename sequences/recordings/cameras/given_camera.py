"""The camera of recordings that do not say it themselves: from camera.yaml beside them, EXIF or a field of view."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from semslam.camera import Camera, same_aspect
from sequences.recordings.folder import read_camera

FULL_FRAME = 36.0  # millimetres, the longer side that EXIF's "focal length in 35 mm film" refers to


class OtherAspect(ValueError):
    """A camera is not that of these images, whatever their size."""


def given_camera(
    path: Path, width: int, height: int, camera: Camera | None, fov: float | None, focal: float | None = None
) -> Camera:
    """The camera of images of this size: the one given, else camera.yaml's, else of `fov`, else of EXIF's `focal`.

    path: the recording; camera.yaml lies in it or beside it, there also as NAME.yaml. fov: horizontal, degrees.
    focal: pixels. A camera of another size but the same aspect is resized; `OtherAspect` where it is of another.
    Where there is none, `Camera.unknown`.
    """
    beside = [path / "camera.yaml", path.with_suffix(".yaml"), path.parent / "camera.yaml"]
    written = next((file for file in beside if file.is_file()), None)
    if camera is None and fov is not None:
        return Camera.of_fov(width, height, fov)
    if camera is None and written is not None:
        camera = read_camera(written)[0]
    if camera is None and focal is not None:
        return Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    if camera is None:
        return Camera.unknown(width, height)
    if not same_aspect(camera.shape, (height, width)):
        raise OtherAspect(
            f"{path}: images are {width}x{height}, but its camera is {camera.width}x{camera.height}, of another aspect"
        )
    return camera.resized(width, height)


def camera_of_numbers(width: int, height: int, numbers: Iterable[float]) -> Camera:
    """The camera of four numbers fx, fy, cx, cy, in pixels."""
    fx, fy, cx, cy = (float(number) for number in numbers)
    return Camera(width, height, fx, fy, cx, cy)


def camera_of_matrix(width: int, height: int, K: np.ndarray) -> Camera:
    """The camera of an intrinsic matrix, (3, 3) or larger."""
    return camera_of_numbers(width, height, (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))


def exif_focal(path: Path, longer_side: int) -> float | None:
    """The focal length in pixels that an image's EXIF gives (its 35 mm equivalent); None where it has none."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            millimetres = image.getexif().get_ifd(0x8769).get(0xA405)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return None
    try:
        millimetres = float(millimetres)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return longer_side * millimetres / FULL_FRAME if millimetres > 0 else None
