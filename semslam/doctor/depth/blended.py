"""Depth that was resized, or smoothed, as if it were a picture: readings of a surface mixed with the 0 of a hole.

A sensor's readings end beside a hole. Where an image is interpolated, they fade towards 0 there, and are mapped as
flakes between the surface and the camera.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semslam.doctor.finding import Finding
from semslam.frame import Frame, evenly_spread

FRAMES = 5  # that are looked at
WIDEST = 6  # pixels from a surface to a hole, over which readings may fade
FLAT, LEFT = 0.02, 0.1  # of the depth, by which readings of one surface differ; by which another one has left it
NEXT_TO_NOTHING = 0.1  # of the depth: hardly more than 0
FEWEST = 100  # places where a surface ends at a hole
NOTABLE = 0.2  # of them; sound recordings have 0.05 at most, also at 160x120, and interpolated ones 0.28 at least
_NONE = np.zeros(0)


def blended(frames: Sequence[Frame]) -> list[Finding]:
    """The warning of depth that fades beside its holes."""
    depths = [frame.depth for frame in frames if frame.depth is not None]
    ends = np.concatenate([_beyond_surfaces(depths[i]) for i in evenly_spread(range(len(depths)), FRAMES)] or [_NONE])
    if len(ends) < FEWEST or (share := float(np.mean(ends > NEXT_TO_NOTHING))) < NOTABLE:
        return []
    what = f"depth fades towards 0 beside {share:.0%} of its holes: it was resized or smoothed as a picture is"
    remedy = "resize depth by its nearest pixel (OpenCV: INTER_NEAREST_EXACT), and smooth it only where there is depth"
    return [Finding("warning", what, remedy)]


def _beyond_surfaces(depth: np.ndarray) -> np.ndarray:
    """What follows a flat surface that a hole ends, along the rows and columns of (H, W) metres both ways: 0 to 0.9,
    in parts of the surface's depth. What is farther than the surface is left out."""
    found = []
    for image in (depth, depth[:, ::-1], depth.T, depth.T[:, ::-1]):
        width = image.shape[1] - WIDEST - 3
        if width < 1:
            continue
        before, last = image[:, :width], image[:, 1 : width + 1]
        hole = (image[:, 2 + WIDEST : width + 2 + WIDEST] == 0) & (image[:, 3 + WIDEST : width + 3 + WIDEST] == 0)
        ends = np.argwhere((before > 0) & (np.abs(before - last) < FLAT * last) & hole)
        row, column = ends[:, :1], ends[:, 1:]
        following = image[row, column + np.arange(2, 2 + WIDEST)] / image[row, column + 1]
        left = np.abs(following - 1) > LEFT
        first = following[np.arange(len(left)), left.argmax(axis=1)]
        found.append(first[left.any(axis=1) & (first < 1)])
    return np.concatenate(found or [_NONE])
