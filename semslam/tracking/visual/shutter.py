"""How long a camera takes to read an image: row by row, or column by column where it was held upright.

Nearly all phones, webcams and depth cameras read their images so (a rolling shutter). Meanwhile a camera in a hand
moves on, and shows what it reads last some pixels from where it was at the image's moment. The camera's motion is known
from its path; with it, one number for all images, the seconds from the first row to the last, tells where everything
would have been (Hedborg et al., "Rolling shutter bundle adjustment", CVPR 2012). It is the one with which landmarks
agree best, and is believed where that is clearly better than without, in either half of the keyframes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semslam import poses
from semslam.tracking.visual.bundle_adjustment import adjust
from semslam.tracking.visual.lens import EVIDENT, FEWEST, MOST, TOGETHER, most_seen
from semslam.tracking.visual.sparse_map import SparseMap
from semslam.tracking.visual.zoom import seen_within

TRIED = 0.7  # of the time from one frame to the next: readouts that are tried first, forth and back
REFINED = 2  # more that are tried where these promise something
AT_MOST = 1.2  # likewise: a readout that is believed is less
FEWEST_SEEN = 20  # observations that tell
HUBER = 2.0  # standard deviations, as in `adjust`


def twists_of(T_world_camera: Sequence[np.ndarray | None], timestamps: np.ndarray) -> np.ndarray:
    """(N, 6) a second of a camera at each of its N poses, in its own frame, by the poses around; 0 where these lack.

    T_world_camera: (4, 4) each. timestamps: (N,) seconds.
    """
    found = np.zeros((len(timestamps), 6))
    for i in range(len(timestamps)):
        if (velocity := poses.velocity(T_world_camera, timestamps, i)) is not None:
            found[i] = velocity
    return found


def readout_of(world: SparseMap, twists: np.ndarray, interval: float) -> np.ndarray | None:
    """(2,) seconds, see `Camera.elapsed`, that landmarks tell of a map's images; None where they tell of none.

    A camera reads along one side of its images, from either end: a phone may be held upright or upside down.

    twists: (K, 6) a second of the camera at each keyframe, in its own frame, in the map's unit. interval: seconds from
    one frame to the next.
    """
    if len(world.keyframes) < FEWEST or not interval > 0 or not np.any(twists):
        return None
    without = _Costs.of(world, np.zeros(2), twists)
    if without.count < FEWEST_SEEN:
        return None
    best, least = np.zeros(2), without
    for axis in np.eye(2)[::-1]:
        axis = axis * interval
        tried = {0.0: without} | {way: _Costs.of(world, way * axis, twists) for way in (-TRIED, TRIED)}
        if without.mean - _vertex(tried)[1] < EVIDENT / 2:
            continue
        for _ in range(REFINED):
            share = float(np.clip(_vertex(tried)[0], -AT_MOST, AT_MOST))
            tried[share] = _Costs.of(world, share * axis, twists)
        share = min(tried, key=lambda one: tried[one].mean)
        if abs(share) < AT_MOST and tried[share].mean < least.mean:
            best, least = share * axis, tried[share]
    alike = all(now < then for now, then in zip(least.halves, without.halves))
    return best if alike and without.mean - least.mean > EVIDENT else None


def _vertex(tried: dict[float, _Costs]) -> tuple[float, float]:
    """Where a parabola through the three least of some costs is least, and its cost there; the least of the costs
    itself where the parabola bends down."""
    at = sorted(tried, key=lambda one: tried[one].mean)[:3]
    bend, slope, level = np.polyfit(at, [tried[one].mean for one in at], 2)
    if bend <= 0:
        return at[0], tried[at[0]].mean
    return -slope / (2 * bend), level - slope**2 / (4 * bend)


class _Costs:
    """Of where landmarks were seen."""

    def __init__(self, each: np.ndarray, later: np.ndarray) -> None:
        """each: (M,) of the observations. later: (M,) bool, in the second half of the keyframes."""
        self.count, self.mean = len(each), float(each.sum() / max(len(each), 1))
        self.halves = float(each[~later].sum()), float(each[later].sum())

    @classmethod
    def of(cls, world: SparseMap, readout: np.ndarray, twists: np.ndarray) -> _Costs:
        """Those of a map, in whose middle part the readout is undone, after its adjustment."""
        count = len(world.keyframes)
        first = max(0, (count - TOGETHER) // 2)
        free = (np.arange(count) >= first) & (np.arange(count) < first + TOGETHER)
        scene, frames, _, _ = world.unrolled(readout, twists).scene(free, with_focal=False)
        scene = most_seen(seen_within(scene, free[frames]), MOST)
        scene = scene._replace(fixed=np.arange(len(scene.fixed)) == 0)
        off = adjust(scene, 20, HUBER, world.pixel_std).residuals / world.pixel_std
        each = np.where(off <= HUBER, off**2, HUBER * (2 * np.minimum(off, 100) - HUBER))
        return cls(each, scene.camera >= len(scene.fixed) // 2)
