"""Bars along the edges of images that a video was fitted into another shape with, black or of any one colour."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SPAN = 16  # grey levels: of nearly all pixels of a bar's row or column, in all images; compression adds some noise
NEARLY_ALL = 99.0  # per cent
SHOWS = 40  # grey levels: an image whose pixels span less shows nothing, and tells nothing of bars
LEAST = 0.02  # of the side: less is the frame of a sensor's image, or what undoing a lens leaves empty
MOST = 0.4  # of the side, of one bar; more is a dark room
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
    top, below = (_bar([image[::step] for image in showing]) for step in (1, -1))
    left, beyond = (_bar([image.transpose(1, 0, 2)[::step] for image in showing]) for step in (1, -1))
    return Window(left, top, width - beyond, height - below)


def shows_something(image: np.ndarray) -> bool:
    """Whether an image (H, W, 3) uint8 is more than one even area."""
    return _span(image[::4, ::4].reshape(-1, 3)) > SHOWS


def _bar(images: list[np.ndarray]) -> int:
    """How many of the first of N rows (N, ..., 3) of all images are to be cut off."""
    count, found = len(images[0]), 0
    first = np.median(_line(images, 0), axis=0)
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
