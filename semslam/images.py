"""Image files as arrays in our units; one clear line where a file cannot be read as one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from semslam.atomic import replacing
from semslam.camera import Camera
from semslam.labels import label_set


class CorruptFrame(ValueError):
    """A frame that cannot be used; the message names the file and the problem."""

    def __init__(self, message: str, broken_file: bool = False) -> None:
        super().__init__(message)
        self.broken_file = broken_file  # missing or damaged: chance, rather than a wrong kind of file


def read_color(path: Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file, in the orientation of its pixels (EXIF rotation is ignored)."""
    import cv2

    return cv2.cvtColor(decode(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), cv2.COLOR_BGR2RGB)


def read_uint16(path: Path) -> np.ndarray:
    """(H, W) uint16 of a depth image file, as stored."""
    import cv2

    image = decode(path, cv2.IMREAD_UNCHANGED)
    if image.dtype != np.uint16 or image.ndim != 2:
        channels = 1 if image.ndim == 2 else image.shape[2]
        raise CorruptFrame(
            f"{path}: depth is {image.dtype} with {channels} channel{'s' * (channels > 1)}, expected uint16 with one; "
            f"convert it (millimetres as uint16 PNG, depth_scale 1000)"
        )
    return image


def read_depth(path: Path, depth_scale: float = 1000.0) -> np.ndarray:
    """(H, W) float32 metres of a uint16 image whose values are `depth_scale` units per metre; 0 = none."""
    return read_uint16(path) * np.float32(1 / depth_scale)


def read_labels(path: Path, set_name: str = "nyu40") -> np.ndarray:
    """(H, W) ids in memory, 255 = unlabelled, of a label image in the file ids of a label set."""
    import cv2

    try:
        return label_set(set_name).from_file_ids(decode(path, cv2.IMREAD_UNCHANGED), path)
    except CorruptFrame:
        raise
    except ValueError as problem:
        raise CorruptFrame(str(problem)) from None


def decode(path: Path, flags: int) -> np.ndarray:
    """The image as OpenCV decodes it; CorruptFrame where the file is missing, cut short or no image."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorruptFrame(f"{path}: the file is missing", broken_file=True) from None
    except OSError as problem:
        raise CorruptFrame(f"{path}: cannot be read ({problem.strerror})", broken_file=True) from None
    return decode_bytes(data, path, flags)


def decode_bytes(data: bytes, where: object, flags: int) -> np.ndarray:
    """The image that an image file's bytes hold, as OpenCV decodes it; `where` is named where they hold none."""
    import cv2

    # Decoders differ in what they make of half a file; some return a grey half without a word.
    # Cameras append things after the end mark, and thumbnails have one of their own, near the start.
    end = {b"\x89PNG": b"IEND", b"\xff\xd8\xff": b"\xff\xd9"}
    for start, mark in end.items():
        if data.startswith(start) and data.rfind(mark) < len(data) // 2:
            raise CorruptFrame(f"{where}: the file is truncated ({len(data)} bytes); copy it again", broken_file=True)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    if image is None:
        state = "is no image or is damaged" if data else "is empty"
        raise CorruptFrame(f"{where}: the file {state}; copy it again", broken_file=True)
    return image


def natural_key(path: Path) -> list[tuple[int, int | str]]:
    """Sorts names as people do: frame2 before frame10."""
    return [(0, int(part)) if part.isdigit() else (1, part) for part in re.split(r"(\d+)", path.name) if part]


def undistorting(
    read: Callable[[Path], np.ndarray], camera: Camera, nearest: bool = False, outside: int = 0
) -> Callable[[Path], np.ndarray]:
    """`read`, with the camera's distortion removed from what it returns.

    `nearest` for depth and labels; `outside` is what pixels without a source get.
    """
    return read if camera.distortion is None else partial(_read_undistorted, read, camera, nearest, outside)


def _read_undistorted(
    read: Callable[[Path], np.ndarray], camera: Camera, nearest: bool, outside: int, path: Path
) -> np.ndarray:
    image = read(path)
    if image.shape[:2] != camera.shape:  # told by the sequence, with the remedy
        return image
    shift = image.dtype.type(outside)  # unsigned integers wrap around, there and back
    return camera.undistort(image - shift, nearest) + shift


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) uint8, or one channel (H, W) uint8 or uint16, as a PNG that appears whole or not at all."""
    import cv2

    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())  # unlike imwrite, this says what is wrong with a full disk
