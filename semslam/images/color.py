"""Colour of image files: 8 bits a channel, those of 16 bits reduced alike in all images of a recording."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from semslam.files.writing import replacing
from semslam.frame import evenly_spread
from semslam.images.decoding import LOOKED_AT, decode_bytes, image_bytes
from semslam.images.integrity import CorruptFrame
from semslam.threads import computed_once

logger = logging.getLogger(__name__)
TWELVE_BITS = 1 << 12  # 16-bit colour that stays below holds 12 bits, as machine vision stores them


def read_color(path: Path, upright: bool = False) -> np.ndarray:
    """(H, W, 3) uint8 RGB of an image file; grey is repeated, alpha dropped, 16-bit colour reduced to 8.

    Of an image alone; those of a recording must be reduced alike, see `ColorReader`.

    Args:
        upright: turn the image as its EXIF orientation says, as viewers do. A recording's images stay as their pixels
            lie, where its camera's intrinsics hold.

    Raises:
        CorruptFrame: the file is missing, cut short, damaged, too large, no image, or a depth image.
    """
    return color_of_bytes(image_bytes(path), path, upright)


def color_of_bytes(data: bytes, path: object, upright: bool = False) -> np.ndarray:
    """The same of an image file's bytes; `path` is named where they hold no image."""
    image = _stored_color(data, path, upright)
    return _rgb(image, path, twelve_bits=image.max(initial=0) < TWELVE_BITS)


@dataclass(frozen=True)
class ColorReader:
    """`read_color` for the images of one recording, whose 16-bit colour is reduced to 8 bits alike in all of them.

    Whether it holds 12 bits is found out when the first such image is read: a dark image alone would look as if.
    """

    paths: tuple[Path, ...]  # of the recording
    upright: bool = False
    read: Callable[[Path], bytes] | None = None  # what a file holds, where it is in no folder

    def __call__(self, path: Path) -> np.ndarray:
        return self.of_bytes((self.read or image_bytes)(path), path)

    def of_bytes(self, data: bytes, path: object) -> np.ndarray:
        """The same of an image file's bytes; `path` is named where they hold no image."""
        image = _stored_color(data, path, self.upright)
        return _rgb(image, path, twelve_bits=image.dtype == np.uint16 and self._twelve_bits)

    @computed_once
    def _twelve_bits(self) -> bool:
        brightest = 0
        for path in evenly_spread(self.paths, LOOKED_AT):
            try:
                image = _stored_color((self.read or image_bytes)(path), path, self.upright)
                brightest = max(brightest, int(image.max(initial=0)))
            except CorruptFrame:  # said when it is read
                continue
        twelve_bits = brightest < TWELVE_BITS
        logger.warning(
            "%s: colour of 16 bits is read as %d bits: the brightest of its images reach %d",
            self.paths[0].parent, 12 if twelve_bits else 16, brightest,
        )  # fmt: skip
        return twelve_bits


def _stored_color(data: bytes, path: object, upright: bool) -> np.ndarray:
    """(H, W) or (H, W, 3) BGR of an image file's bytes, in the numbers that it stores."""
    import cv2

    turning = 0 if upright else cv2.IMREAD_IGNORE_ORIENTATION
    return decode_bytes(data, path, cv2.IMREAD_ANYCOLOR | cv2.IMREAD_ANYDEPTH | turning)


def _rgb(image: np.ndarray, path: object, twelve_bits: bool) -> np.ndarray:
    """(H, W, 3) uint8 RGB of what `_stored_color` returns; CorruptFrame where that is depth."""
    import cv2

    if image.dtype == np.uint16 and image.ndim == 3:
        image = np.minimum(image >> (4 if twelve_bits else 8), 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise CorruptFrame(f"{path}: is {image.dtype} with one channel, as depth images are; expected 8-bit colour")
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)


def write_png(path: Path, image: np.ndarray) -> None:
    """Write RGB (H, W, 3) uint8, or one channel (H, W) uint8 or uint16, as a PNG that appears whole or not at all."""
    import cv2

    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    _, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    with replacing(path) as temporary:
        temporary.write_bytes(data.tobytes())  # unlike imwrite, this says what is wrong with a full disk
