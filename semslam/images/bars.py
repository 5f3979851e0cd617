"""Bars along two opposite edges of images that a video was fitted into another shape with, of any one colour."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SPAN = 16  # grey levels: of nearly all pixels of a bar's row or column, in all images; compression adds some noise
NEARLY_ALL = 99.0  # per cent
SHOWS = 40  # grey levels: an image whose pixels span less shows nothing, and tells nothing of bars
LEAST = 0.02  # of the side: less is the frame of a sensor's image, or what undoing a lens leaves empty
MOST = 0.4  # of the side, of one bar; more is a dark room
UNEQUAL = 0.1  # of a bar's width: by which the two of a pair may differ, where a dark edge of the scene adds to one
MARGIN = 2  # pixels beside a bar that its edge is smeared over


class Window(NamedTuple):
    """The part of an image between bars, pixels: columns left to right - 1, rows top to bottom - 1."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """The same part of an image (H, W, ...)."""
        return np.ascontiguousarray(image[self.top : self.bottom, self.left : self.right])


def window_between_bars(images: list[np.ndarray]) -> Window | None:
    """What lies between the bars that all images (H, W, 3) uint8 RGB of a video have, all where they have none; None
    where no image shows anything."""
    showing = [image for image in images if shows_something(image)]
    if not showing:
        return None
    height, width = showing[0].shape[:2]
    rows, columns = _bars(showing), _bars([image.transpose(1, 0, 2) for image in showing])
    return Window(columns, rows, width - columns, height - rows)


def shows_something(image: np.ndarray) -> bool:
    """Whether an image (H, W, 3) uint8 is more than one even area."""
    return _span(image[::4, ::4].reshape(-1, 3)) > SHOWS


def _bars(images: list[np.ndarray]) -> int:
    """How many of the first and of the last of N rows (N, ..., 3) of all images are to be cut off.

    Both are bars, equally wide and of one colour, or none is: a white ceiling, or the sky, is at one edge alone.
    """
    there, here = (np.median(_line(images, k), axis=0) for k in (0, -1))
    if np.abs(there - here).max() > SPAN:
        return 0
    one, other = _bar(images, there), _bar([image[::-1] for image in images], here)
    return max(one, other) if min(one, other) > 0 and abs(one - other) <= UNEQUAL * max(one, other) + MARGIN else 0


def _bar(images: list[np.ndarray], first: np.ndarray) -> int:
    """How many of the first of N rows (N, ..., 3) of all images, of which the first is of this colour, are a bar."""
    count, found = len(images[0]), 0
    while found <= MOST * count:
        line = _line(images, found)
        if _span(line) > SPAN or np.abs(np.median(line, axis=0) - first).max() > SPAN:
            break
        found += 1
    return found + MARGIN if LEAST * count <= found <= MOST * count else 0


def _line(images: list[np.ndarray], k: int) -> np.ndarray:
    """(M, 3) the pixels of row k of all images."""
    return np.concatenate([image[k] for image in images])


def _span(pixels: np.ndarray) -> float:
    """Grey levels that nearly all pixels (N, 3) lie within, in the channel where that is most."""
    low, high = np.percentile(pixels, [100 - NEARLY_ALL, NEARLY_ALL], axis=0)
    return float((high - low).max())
