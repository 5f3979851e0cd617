"""Image files as arrays in our units; one clear line where a file cannot be read as one."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.images.color import ColorReader, color_of_bytes, read_color, write_png
from semslam.images.decoding import decode, decode_bytes, image_bytes, unreadable
from semslam.images.depth import (
    DEPTH_SCALES,
    MARK,
    DepthReader,
    depth_of_bytes,
    depth_of_units,
    depth_units,
    fitting_scale,
    read_depth,
    read_uint16,
)
from semslam.images.integrity import CorruptFrame

__all__ = [
    "COLOR_SUFFIXES",
    "DEPTH_SCALES",
    "MARK",
    "ColorReader",
    "CorruptFrame",
    "DepthReader",
    "color_of_bytes",
    "decode",
    "decode_bytes",
    "depth_of_bytes",
    "depth_of_units",
    "depth_units",
    "fitting_scale",
    "image_bytes",
    "natural_key",
    "read_color",
    "read_depth",
    "read_uint16",
    "undistorting",
    "unreadable",
    "write_png",
]

COLOR_SUFFIXES = (".jpg", ".jpeg", ".png")  # in small letters, of colour images


def natural_key(path: Path) -> list[tuple[int, float | str]]:
    """Sorts names as people do: frame2 before frame10, and 9.5 before 10.25 where the name is a time."""

    def key(part: str) -> tuple[int, float | str]:
        if not re.fullmatch(_NUMBER, part):
            return 1, part
        return 0, float(part) if "." in part else int(part)  # integers may have more digits than a float keeps

    return [key(part) for part in re.split(_NUMBER, path.name) if part]


# A decimal number that is the whole name, or has the digits of a time since 1970; else digits alone: part1.10 counts.
_NUMBER = re.compile(r"(^[0-9]+\.[0-9]+(?=$|\.[A-Za-z])|(?<![0-9.])[0-9]{9,}\.[0-9]+(?![0-9.]*[0-9])|[0-9]+)")


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
    if image.shape[:2] != camera.shape:  # told by the sequence, which resizes depth of the same view
        camera = camera.resized(image.shape[1], image.shape[0])
    shift = image.dtype.type(outside)  # unsigned integers wrap around, there and back
    return camera.undistort(image - shift, nearest) + shift
