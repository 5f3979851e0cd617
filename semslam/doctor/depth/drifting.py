"""Depth whose scale changes from one moment to another, as that of a stereo camera that is warming up or calibrates
itself: told from pairs of frames.

The distances between the points that two frames show are the same in both, whatever the camera's motion; where all are
longer in one of them, its depth is. Depth of a camera beside colour's that was not registered looks alike: on
a slanted wall, a pixel's reading is another's, and too long by one factor, which changes with the wall. In a room, 2
degrees told 0.36 of the pairs, in which near and far, left and right differed as little as where depth drifts.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semslam.camera import Camera
from semslam.doctor.finding import Finding
from semslam.doctor.intrinsics import FEWEST_PAIRS, moving_pairs
from semslam.doctor.matched import Matches, Pair
from semslam.robust import MAD_TO_STD

DISTANCES, FEWEST = 400, 50  # between points of a pair, drawn and used
APART = 0.15  # of the median depth, at least, in both frames: less is noise
NOTABLE, SURE = 0.02, 4.0  # of the length, and standard errors, of a pair that tells
# Of the pairs. With sound depth at most 0.05, with focal lengths that are a quarter off 0.14; 0.55 where depth drifts
# by 4 % to and fro in 5 s (kitchen)
SHARE = 0.3


class Change(NamedTuple):
    """By which depth differs between the two frames of a pair."""

    factor: float  # its logarithm
    std: float


def findings(matched: Matches, camera: Camera) -> list[Finding]:
    """The warning of depth whose scale changes; none where too few pairs tell."""
    changes = [change for pair in moving_pairs(matched) if (change := _change(pair, camera)) is not None]
    telling = [abs(change.factor) for change in changes if abs(change.factor) > max(NOTABLE, SURE * change.std)]
    if len(changes) < FEWEST_PAIRS or len(telling) <= SHARE * len(changes):
        return []
    what = (
        f"the scale of depth changes with time, or depth does not lie under colour: in {len(telling)} of "
        f"{len(changes)} pairs of frames up to 3 s apart, the same distances differ by {100 * NOTABLE:.0f} % or more "
        f"({100 * float(np.median(telling)):.1f} %, median)"
    )
    remedy = (
        "let the depth camera warm up, and switch its self-calibration off while it records; register depth of another "
        "camera than colour's (depth_camera and T_color_depth in camera.yaml)"
    )
    return [Finding("warning", what, remedy)]


def _change(pair: Pair, camera: Camera) -> Change | None:
    """How much longer distances are in the second frame of a pair; None where it shows too few."""
    a, b = (camera.points(pixels, depth) for pixels, depth in zip(pair.pixels, pair.depth))
    rng = np.random.default_rng(0)
    i, j = rng.integers(0, len(a), (2, DISTANCES))
    before, after = (np.linalg.norm(points[i] - points[j], axis=1) for points in (a, b))
    least = APART * float(np.median(pair.depth[0]))
    used = (before > least) & (after > least)
    if np.count_nonzero(used) < FEWEST:
        return None
    ratios = np.log(after[used] / before[used])
    middle = float(np.median(ratios))
    spread = MAD_TO_STD * float(np.median(np.abs(ratios - middle)))
    return Change(middle, 1.25 * spread / min(len(a), len(ratios)) ** 0.5)  # of a median of so many points
