"""Parts of the image that stay while the camera moves: a hand that holds it, an overlay, pixels that are frozen.

Points that two frames show stay where they are, though the motion that the other points tell would take them away; or
pixels of colour have one value in all frames while depth changes behind them, or the other way round. A surface
without corners, such as a bare arm, gives itself away by its depth: it stays where the motion of the camera would have
changed it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.doctor.finding import Finding
from semslam.doctor.matched import DEPTHS_APART, FEWEST_MATCHES, FEWEST_PIXELS, WITHIN, Matches, Pair, Shown, rigid
from semslam.frame import Frame
from sequences import Sequence as Recording

STAYS, MOVES = 1.5, 12.0  # pixels at 640 wide: a point that stays, and one that should not
STAYS_BESIDE = 0.15  # of the way that a point should go: so much may a hand move against the camera
TELLS = 3.0  # pixels at 640 wide that the other points move
FEWEST_PAIRS = 3
NOTABLE = 0.1  # of the points or pixels; none in sound recordings. Text over the image may have nearly all points
STRIDE = 4  # pixels each way: pixels that are looked at
SAME, CHANGED = 2, 20  # grey levels: of a pixel that has one value, and of one that has not
DEPTH_CHANGED = 0.1  # of the depth
FEWEST_FRAMES = 7  # with one value: in fewer, painted surfaces of one colour have it, too
ONE_DEPTH = 0.02  # of the depth: what stays is as deep in all frames but for noise
MOSTLY = 0.75  # of the frames in which a pixel has that depth
ONE_MARK = 0.9  # of the pixels with one depth in all frames: so many share it where it is a mark for none
PAIRS = 8  # of frames, whose motion is known, that are looked at: those that move most
CONTRADICTED = 0.25  # of the pixels that stay: a floor or a wall along which the camera moves has hardly any


def findings(matched: Matches) -> list[Finding]:
    """The warning of parts that stay."""
    frames, camera = matched.samples, matched.recording.camera
    shares = [share for shown in matched.shown if (share := _staying(shown, camera)) is not None]
    if len(shares) >= FEWEST_PAIRS and (share := float(np.median(shares))) > NOTABLE:
        what = f"{share:.0%} of the points that two frames show stay where they are in the image while the camera moves"
        return [Finding("warning", what, REMEDY)]
    for name, share in _constant(frames).items():
        if share > NOTABLE:
            if name == "depth" and (mark := _mark(frames)) is not None:
                what = f"{share:.0%} of the pixels have the depth {mark:.3f} m in all frames: a mark for missing depth"
                return [Finding("warning", what, "write 0 where depth is missing: a mark is mapped as a surface")]
            what = f"{share:.0%} of the pixels have one {name} in all frames while the other images change there"
            return [Finding("warning", what, REMEDY)]
    if (share := _carried(matched, frames)) > NOTABLE:
        what = f"{share:.0%} of the pixels keep their depth though the camera's motion would change it"
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
    depth, spread = _depth_and_spread(frames)
    farthest, nearest = depth.max(axis=0), np.where(depth > 0, depth, np.inf).min(axis=0)
    changed = farthest > (1 + DEPTH_CHANGED) * nearest  # not where there is none
    return {"colour": float((changed & (spread <= SAME)).mean()), "depth": float(_one_depth(depth, spread).mean())}


def _mark(frames: Sequence[Frame]) -> float | None:
    """The depth, metres, that nearly all pixels share whose depth is one while their colour changes; None where they
    have several, as a hand or frozen pixels have."""
    depth, spread = _depth_and_spread([frame for frame in frames if frame.depth is not None])
    values, counts = np.unique(depth[0][_one_depth(depth, spread)], return_counts=True)
    return float(values[counts.argmax()]) if counts.max() > ONE_MARK * counts.sum() else None


def _depth_and_spread(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """Depth (N, h, w) of frames that all have it, and by how many grey levels the colour of a pixel (h, w) changes."""
    depth = np.array([frame.depth[::STRIDE, ::STRIDE] for frame in frames if frame.depth is not None])
    color = np.array([frame.color[::STRIDE, ::STRIDE] for frame in frames])
    return depth, np.ptp(color, axis=0).max(axis=-1)


def _one_depth(depth: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """(h, w) bool: where depth (N, h, w) is one in all frames while the colour's spread (h, w) says that it moved."""
    return (depth > 0).all(axis=0) & (np.ptp(depth, axis=0) == 0) & (spread > CHANGED)


def _carried(matched: Matches, frames: Sequence[Frame]) -> float:
    """The share of pixels whose surface stays before the camera, by its depth, and moves against the world."""
    depth = [frame.depth[::STRIDE, ::STRIDE] for frame in frames if frame.depth is not None]
    if len(depth) < FEWEST_FRAMES:
        return 0.0
    readings = np.where(np.array(depth) > 0, depth, np.nan)
    usual = np.nanmedian(np.where(np.isnan(readings).all(axis=0), 0, readings), axis=0)
    stays = (np.abs(readings - usual) < ONE_DEPTH * usual).mean(axis=0) >= MOSTLY
    share = float(stays.mean())
    if share <= NOTABLE:  # as in nearly all recordings, which need no more
        return 0.0
    pairs = sorted(matched.pairs, key=lambda pair: -pair.flow)[:PAIRS]
    told = [found for pair in pairs if (found := _contradicted(matched.recording, pair, usual, stays)) is not None]
    return share if len(told) >= FEWEST_PAIRS and np.median(told) > CONTRADICTED else 0.0


def _contradicted(recording: Recording, pair: Pair, usual: np.ndarray, stays: np.ndarray) -> float | None:
    """Of the pixels that stay: the share that lie at their usual depth in both frames of a pair, and could not if they
    were fixed to the world; None where hardly any can be told.

    usual, stays: depth (h, w) in metres and a mask, of every STRIDE-th pixel.
    """
    first, last = recording.try_read(pair.first), recording.try_read(pair.last)
    if first is None or last is None or first.depth is None or last.depth is None:
        return None
    v, u = np.nonzero(stays)
    points = recording.camera.points(np.stack([u, v], axis=1) * float(STRIDE), usual[v, u])
    moved = poses.transform(pair.T_last_first, points)
    there = np.rint(recording.camera.project(moved)).astype(int)
    height, width = last.depth.shape
    inside = (moved[:, 2] > 0) & (there >= 0).all(axis=1) & (there < (width, height)).all(axis=1)
    read = np.zeros(len(moved))
    read[inside] = last.depth[there[inside, 1], there[inside, 0]]
    here = [
        np.abs(frame.depth[::STRIDE, ::STRIDE][v, u] - usual[v, u]) < ONE_DEPTH * usual[v, u]
        for frame in (first, last)
        if frame.depth is not None
    ]
    told = read > 0
    if told.sum() < NOTABLE * len(told):
        return None
    wrong = told & here[0] & here[1] & (np.abs(moved[:, 2] - read) > DEPTHS_APART * read)
    return float(wrong.sum() / told.sum())
