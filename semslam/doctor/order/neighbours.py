"""How much two frames of a recording have in common, and how the image moves between them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from semslam.doctor.flow import found_again
from semslam.files.failures import raise_passing
from sequences import Sequence

WIDTH = 160  # pixels: images are compared this small
POINTS = 120  # followed from one frame to the other, at most
FEWEST_POINTS = 12
TEXTURE, PATCH = 2.0, 7  # standard deviations of the image's noise in a patch of so many pixels: a point, and no noise
LITTLE = 0.3  # of the points: what is found by chance; 0.7 to 1 are found in the next frame of real recordings


class Common(NamedTuple):
    """What two frames have in common."""

    share: float  # of one's points that are found in the other
    moved: np.ndarray  # (2,) pixels of an image of WIDTH, the median of those


class Neighbours:
    """Compares frames of a recording; those compared last are kept."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._grey = lru_cache(maxsize=8)(self._read)

    def between(self, one: int, other: int) -> Common | None:
        """None where an image cannot be read or has too little texture to tell."""
        first, second = self._grey(one), self._grey(other)
        if first is None or second is None:
            return None
        corners = cv2.goodFeaturesToTrack(first, POINTS, 0.01, 5)
        if corners is None or len(corners) < FEWEST_POINTS:
            return None
        pixels = _textured(first, corners.reshape(-1, 2))
        if len(pixels) < FEWEST_POINTS:
            return None
        to, found = found_again(first, second, pixels, 15)
        moved = np.median((to - pixels)[found], axis=0) if found.any() else np.zeros(2)
        return Common(float(found.mean()), moved)

    def _read(self, index: int) -> np.ndarray | None:
        try:
            color = self._sequence.color_of(index)
        except (ValueError, OSError) as problem:
            raise_passing(problem)
            return None
        height = max(1, round(WIDTH * color.shape[0] / color.shape[1]))
        return cv2.resize(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), (WIDTH, height), interpolation=cv2.INTER_AREA)


def _textured(grey: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Those of pixels (N, 2) that show more than noise: a bare wall has corners of noise, which no other frame has.

    The noise is that of Immerkaer (CVIU 1996), which takes fine texture for noise, too.
    """
    image = grey.astype(np.float32)
    flat = cv2.filter2D(image, -1, np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32))
    noise = max(1.0, float(np.sqrt(np.pi / 2) / 6 * np.abs(flat).mean()))
    mean, square = cv2.blur(image, (PATCH, PATCH)), cv2.blur(image**2, (PATCH, PATCH))
    columns, rows = np.rint(pixels).astype(int).T
    return pixels[(square - mean**2)[rows, columns] > (TEXTURE * noise) ** 2]
