"""Points that two frames of a recording show, and the motion between the two that they tell by themselves.

SIFT features with depth (Lowe, IJCV 2004) are matched between frames up to seconds apart; P3P with RANSAC finds the
motion. Given poses take no part, so that they can be held against it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple, Self

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.doctor import flow
from semslam.frame import Frame, evenly_spread
from semslam.tracking.features import sampled_pose
from semslam.tracking.relocalisation.places import matches, root_sift
from sequences import Sequence as Recording

STARTS, FEWEST_STARTS = 24, 12  # frames that are matched to later ones, at most, and in short recordings
SAMPLES = 8  # frames whose pixels are looked at
SECONDS_APART = (0.5, 1.0, 2.0, 3.0)  # of the frames of a pair ...
SHORTLY = 0.2  # ... and of those of each second start, as well
WITHIN, FEWEST_PIXELS = 6.0, 3.0  # pixels at 640 wide, and in small images, of the matches that a motion explains
DEPTHS_APART = 0.1  # of the depth, at most, between what was read and where the motion puts a point
FEWEST_MATCHES = 15
AGREEING = 0.5  # of the matches of two frames, at least, that one motion explains: fewer may agree by chance


@dataclass(frozen=True, eq=False)
class Shown:
    """Points that two frames show alike, by their looks alone: some are not the same."""

    first: int  # frame indices
    last: int
    pixels: tuple[np.ndarray, np.ndarray]  # (N, 2) in either frame
    depth: tuple[np.ndarray, np.ndarray]  # (N,) metres

    @property
    def flow(self) -> float:
        """Median distance in pixels that the points moved."""
        return float(np.median(np.linalg.norm(self.pixels[1] - self.pixels[0], axis=1)))

    def only(self, kept: np.ndarray | Sequence[int]) -> Self:
        """Some of the points, by their numbers or by a mask (N,)."""
        (a, b), (near, far) = self.pixels, self.depth
        return replace(self, pixels=(a[kept], b[kept]), depth=(near[kept], far[kept]))


@dataclass(frozen=True, eq=False)
class Pair(Shown):
    """Points that two frames show, and the motion that explains them."""

    T_last_first: np.ndarray  # (4, 4)


class Matches:
    """The pairs of a recording, and some of its frames; matched and read when they are asked for, once."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        times = recording.timestamps
        interval = max(float(np.median(np.diff(times))), 1e-3) if len(times) > 1 else np.inf
        steps = (max(1, round((b - a) / interval)) for a, b in pairwise((0.0, *SECONDS_APART)))
        self.gaps = np.cumsum(list(steps))  # frames that the pairs of SECONDS_APART are apart
        self.short = max(1, round(SHORTLY / interval))

    @cached_property
    def samples(self) -> list[Frame]:
        """A few frames of the whole recording, of those that can be read, without labels."""
        some = (self.recording.try_read(index) for index in evenly_spread(range(len(self.recording)), SAMPLES))
        return [frame for frame in some if frame is not None]

    @cached_property
    def pairs(self) -> list[Pair]:
        """Pairs over the whole recording, by their first frames: those whose points one motion explains."""
        return [pair for shown in self.shown if (pair := _explained(self.recording, shown)) is not None]

    @cached_property
    def shown(self) -> list[Shown]:
        """The same before any motion is known; none without depth."""
        recording, gaps, short = self.recording, self.gaps, self.short
        if not recording.has_depth:
            return []
        last_start = max(len(recording) - int(gaps[0]), 0)
        grid = max(1, min(int(gaps[0]), last_start // FEWEST_STARTS))  # on it, many frames are shared, and read once
        starts = sorted({start // grid * grid for start in evenly_spread(range(last_start), STARTS)})
        found: list[Shown] = []
        seen: dict[int, _Described | None] = {}
        for number, first in enumerate(starts):
            for gap in sorted({*gaps.tolist(), *([] if number % 2 else [short])}):
                if (last := first + gap) < len(recording):
                    for index in (first, last):
                        if index not in seen:
                            seen[index] = _described(recording, index)
                    found += _matched(first, last, seen)
            seen = {index: kept for index, kept in seen.items() if index > first}
        return found


def given_motion(recording: Recording, pair: Pair) -> np.ndarray | None:
    """T_last_first (4, 4) of a pair by the poses of a recording; None where one has none."""
    T_world_first, T_world_last = ((recording.poses or ())[index] for index in (pair.first, pair.last))
    if T_world_first is None or T_world_last is None:
        return None
    return poses.inverse(T_world_last) @ T_world_first


class _Described(NamedTuple):
    """The features of a frame that lie on surfaces."""

    pixels: np.ndarray  # (N, 2)
    depth: np.ndarray  # (N,) metres
    descriptors: np.ndarray  # (N, 128) float32, of `root_sift`


def _described(recording: Recording, index: int) -> _Described | None:
    frame = recording.try_read(index)
    if frame is None or frame.depth is None:
        return None
    grey = cv2.cvtColor(frame.color, cv2.COLOR_RGB2GRAY)
    pixels, descriptors = root_sift(grey)
    if not len(pixels):
        return None
    depth = cv2.remap(frame.depth, pixels[:, :1], pixels[:, 1:], cv2.INTER_LINEAR).ravel()
    good = flow.on_surfaces(frame.depth, pixels) & (depth > 0)
    return _Described(
        pixels[good].astype(np.float64), depth[good].astype(np.float64), descriptors[good].astype(np.float32)
    )


def _matched(first: int, last: int, seen: dict[int, _Described | None]) -> Iterator[Shown]:
    """What two frames both show; nothing for few points."""
    a, b = seen[first], seen[last]
    if a is None or b is None or min(len(a.pixels), len(b.pixels)) < FEWEST_MATCHES:
        return
    i, j = matches(a.descriptors, b.descriptors)
    if len(i) >= FEWEST_MATCHES:
        yield Shown(first, last, (a.pixels[i], b.pixels[j]), (a.depth[i], b.depth[j]))


def rigid(camera: Camera, shown: Shown) -> tuple[np.ndarray, np.ndarray] | None:
    """T_last_first (4, 4) by the depth of the first frame, and the numbers of the points that it puts where the last
    one shows them, at the depth that is read there; None where no motion is found."""
    points = camera.points(shown.pixels[0], shown.depth[0])
    within = max(WITHIN * camera.width / 640, FEWEST_PIXELS)
    if (sampled := sampled_pose(points, shown.pixels[1], camera, within, tries=300, confidence=0.999)) is None:
        return None
    T_b_a, chosen = sampled
    z, read = poses.transform(T_b_a, points[chosen])[:, 2], shown.depth[1][chosen]
    return T_b_a, chosen[np.abs(z - read) < DEPTHS_APART * read]


def _explained(recording: Recording, shown: Shown) -> Pair | None:
    """The pair of two frames whose points one motion explains; None where it explains too few."""
    found = rigid(recording.camera, shown)
    if found is None or len(found[1]) < max(FEWEST_MATCHES, AGREEING * len(shown.depth[0])):
        return None
    T_b_a, chosen = found
    agreeing = shown.only(chosen)
    return Pair(shown.first, shown.last, agreeing.pixels, agreeing.depth, T_b_a)
