"""Parts of the image that stay while the camera moves: a hand that holds it, an overlay, pixels that are frozen.

Points that two frames show stay where they are, though the motion that the other points tell would take them away; or
pixels of colour have one value in all frames while depth changes behind them, or the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.doctor.finding import Finding
from semslam.doctor.matched import FEWEST_MATCHES, FEWEST_PIXELS, WITHIN, Matches, Shown, rigid
from semslam.frame import Frame

STAYS, MOVES = 1.5, 12.0  # pixels at 640 wide: a point that stays, and one that should not
STAYS_BESIDE = 0.15  # of the way that a point should go: so much may a hand move against the camera
TELLS = 3.0  # pixels at 640 wide that the other points move
FEWEST_PAIRS = 3
NOTABLE = 0.1  # of the points or pixels; none in sound recordings. Text over the image may have nearly all points
STRIDE = 4  # pixels each way: pixels that are looked at
SAME, CHANGED = 2, 20  # grey levels: of a pixel that has one value, and of one that has not
DEPTH_CHANGED = 0.1  # of the depth
FEWEST_FRAMES = 6  # with one value


def findings(matched: Matches, frames: Sequence[Frame], camera: Camera) -> list[Finding]:
    """The warning of parts that stay. frames: some, of the whole recording."""
    shares = [share for shown in matched.shown if (share := _staying(shown, camera)) is not None]
    if len(shares) >= FEWEST_PAIRS and (share := float(np.median(shares))) > NOTABLE:
        what = f"{share:.0%} of the points that two frames show stay where they are in the image while the camera moves"
        return [Finding("warning", what, REMEDY)]
    for name, share in _constant(frames).items():
        if share > NOTABLE:
            what = f"{share:.0%} of the pixels have one {name} in all frames while the other images change there"
            return [Finding("warning", what, REMEDY)]
    return []


REMEDY = (
    "is a hand, a part of what carries the camera or an overlay in view, or are pixels frozen? Leave them out: depth 0 "
    "there, or cropped images with their intrinsics"
)


def _staying(shown: Shown, camera: Camera) -> float | None:
    """The share of the points that stay, of those that should not; None where too few points tell."""
    small = camera.width / 640
    moved = np.linalg.norm(shown.pixels[1] - shown.pixels[0], axis=1)
    telling = moved > TELLS * small
    if telling.sum() < FEWEST_MATCHES:
        return None
    motion = rigid(camera, shown.only(telling))
    if motion is None or len(motion[1]) < max(FEWEST_MATCHES, telling.sum() / 2):
        return None
    there = camera.project(poses.transform(motion[0], camera.points(shown.pixels[0], shown.depth[0])))
    way = np.linalg.norm(there - shown.pixels[0], axis=1)
    should = way > MOVES * small
    stays = should & (moved < np.maximum(STAYS * small, STAYS_BESIDE * way))
    goes = should & (np.linalg.norm(there - shown.pixels[1], axis=1) < max(WITHIN * small, FEWEST_PIXELS))
    count = int(stays.sum() + goes.sum())
    return float(stays.sum()) / count if count >= FEWEST_MATCHES else None


def _constant(frames: Sequence[Frame]) -> dict[str, float]:
    """The shares of pixels with one colour while their depth changes, and with one depth while their colour does."""
    frames = [frame for frame in frames if frame.depth is not None]
    if len(frames) < FEWEST_FRAMES:
        return {}
    depth = np.array([frame.depth[::STRIDE, ::STRIDE] for frame in frames if frame.depth is not None])
    color = np.array([frame.color[::STRIDE, ::STRIDE] for frame in frames])
    spread = np.ptp(color, axis=0).max(axis=-1)
    farthest, nearest = depth.max(axis=0), np.where(depth > 0, depth, np.inf).min(axis=0)
    changed = farthest > (1 + DEPTH_CHANGED) * nearest  # not where there is none
    return {
        "colour": float((changed & (spread <= SAME)).mean()),
        "depth": float(((depth > 0).all(axis=0) & (farthest == nearest) & (spread > CHANGED)).mean()),
    }
