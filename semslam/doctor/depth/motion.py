"""Depth that is not of its images: of another place or moment, or a number that is no distance. Needs no poses.

What two images both show moves as the geometry of two views allows, whatever the depth (the fundamental matrix: Hartley
and Zisserman, "Multiple View Geometry", 2004, 9). Depth of the scene explains these points by one motion of the camera,
and is read again at the end of it; other numbers are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.doctor.finding import Finding
from semslam.doctor.matched import FEWEST_MATCHES, Matches, Shown, rigid

FEWEST_PAIRS = 8
MOVED = 12.0  # pixels at 640 wide: beside less, any depth explains what is seen
EPIPOLAR = 2.0  # pixels at 640 wide
ON_PLANE = 0.5  # of the points: so many on one plane, and the others may fit the two views by chance
AGREES = 0.65  # of the points, in the worst quarter of the pairs; sound recordings reach 0.78 and more, also with a
# hand that waves before the camera; depth of other moments or places 0.15 to 0.76
BETTER = 0.8  # what another reading of the numbers must reach to be named
OTHER_FOCALS = (0.7, 1.4)  # of the stated one, tried
READINGS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "one divided by the distance": (lambda d: 1 / d, "they may be disparity or inverse depth"),
    "the logarithm of the distance": (lambda d: np.expm1(d), "they may be log(1 + distance)"),
}


def findings(matched: Matches, camera: Camera) -> list[Finding]:
    """The error of depth that does not explain how the images move; empty where it does, or too little is shown."""
    some = [true for shown in matched.shown if (true := _of_two_views(shown, camera)) is not None]
    if len(some) < FEWEST_PAIRS or (agreeing := _agreement(some, camera)) >= AGREES:
        return []
    what = (
        f"depth does not explain how the images move: {100 * agreeing:.0f} % of the points that two of them show lie "
        f"where it puts them"
    )
    if any(_agreement(some, camera.with_focal(factor * camera.fx)) > BETTER for factor in OTHER_FOCALS):
        return []  # it is the focal length, which is measured elsewhere
    for reading, (distance, hint) in READINGS.items():
        read = [replace(shown, depth=(distance(shown.depth[0]), distance(shown.depth[1]))) for shown in some]
        if _agreement(read, camera) > BETTER:
            remedy = f"write distances along the optical axis; {hint}"
            return [Finding("error", f"the images fit depth numbers that are {reading}", remedy)]
    remedy = "is it of another recording or moment than colour, or no distance? --depth predicted maps colour alone"
    return [Finding("error", what, remedy)]


def _of_two_views(shown: Shown, camera: Camera) -> Shown | None:
    """The points that two views of one scene may show; None for few, or where they hardly move.

    Points on a plane, such as a hand's, leave the fundamental matrix open, so that what rests behind it fits by chance
    (Hartley and Zisserman, 11.9): where most are on one, these are judged alone.
    """
    small = camera.width / 640
    if shown.flow < MOVED * small:
        return None
    _, mask = cv2.findFundamentalMat(*shown.pixels, cv2.FM_RANSAC, EPIPOLAR * small, 0.999, 500)
    kept = np.zeros(0, bool) if mask is None else mask.ravel() > 0
    if kept.sum() < FEWEST_MATCHES:
        return None
    both = shown.only(kept)
    _, mask = cv2.findHomography(*both.pixels, cv2.RANSAC, EPIPOLAR * small, maxIters=500, confidence=0.999)
    plane = np.zeros(0, bool) if mask is None else mask.ravel() > 0
    return both.only(plane) if plane.sum() >= max(FEWEST_MATCHES, ON_PLANE * len(plane)) else both


def _agreement(some: Sequence[Shown], camera: Camera) -> float:
    """The share of points that depth explains, in the pair at the lower quartile."""
    shares = []
    for shown in some:
        found = rigid(camera, shown)
        shares.append(0.0 if found is None else len(found[1]) / len(shown.depth[0]))
    return float(np.quantile(shares, 0.25))
