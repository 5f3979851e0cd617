"""How far given poses are off the motion that the images tell: noise, a drift, or another motion altogether.

The points that two frames show are moved from one to the other by the given poses, and by the motion that they tell
themselves. Noise of single poses sets the two apart alike however much time is between the frames; a drift sets them
apart the more, the longer that is; poses of another motion by as much as the camera moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.doctor.finding import Finding
from semslam.doctor.matched import Matches, Pair, given_motion
from sequences import Sequence as Recording

FEWEST_PAIRS = 6
NOISY = (0.015, 0.012)  # metres, and share of the depth, between frames a moment apart; sound ones reach half of that
DRIFTING = (0.045, 0.025)  # the same between frames a second or more apart, beside what noise explains
SHORTEST_DRIFT = 0.9  # seconds
BESIDE_NOISE = 2.5  # times what frames a moment apart are off; of noise alone, up to 1.8
MOVED = 0.05  # of the depth: points that move less tell no other motion
# Of the way that points move: what poses are off that are no better than none. Noise does not grow with time.
ANOTHER_MOTION, NO_MOTION, GROWING = 0.6, 0.9, 2.0


class Distance(NamedTuple):
    """Between where the given poses and where the images put the points of a frame: medians over pairs of frames."""

    seconds: float  # between the frames of a pair
    metres: float
    of_depth: float  # share of the points' depth

    def is_beyond(self, limits: tuple[float, float]) -> bool:
        """Whether both limits, metres and share of the depth, are exceeded."""
        return self.metres > limits[0] and self.of_depth > limits[1]

    def drifts_beside(self, moment: Distance) -> bool:
        """Whether this is far more than what frames a moment apart are off."""
        long = self.seconds > max(SHORTEST_DRIFT, 2 * moment.seconds)
        return long and self.is_beyond(DRIFTING) and self.metres > BESIDE_NOISE * moment.metres


class PoseErrors(NamedTuple):
    """What the given poses of a recording are off."""

    moment: Distance | None  # frames a moment apart; None for too few pairs
    later: tuple[Distance, ...]  # frames half a second to seconds apart, nearest first
    of_motion: float  # share of the way that points move, where they move far

    @property
    def compared(self) -> tuple[Distance, ...]:
        """All there are, of the nearest frames first."""
        return (*([] if self.moment is None else [self.moment]), *self.later)

    @property
    def another_motion(self) -> bool:
        """Whether the poses explain next to nothing of how the camera moves."""
        grows = bool(self.compared) and self.compared[-1].metres > GROWING * self.compared[0].metres
        return self.of_motion > (ANOTHER_MOTION if grows else NO_MOTION)

    def findings(self) -> list[Finding]:
        """A warning of noise, or of a drift; of poses as good as those of usual recordings nothing."""
        if self.another_motion:
            return []
        if self.later and self.later[-1].drifts_beside(self.compared[0]):
            moment, longest = self.compared[0], self.later[-1]
            what = (
                f"the poses drift: by them, what frames {longest.seconds:.1f} s apart show lies "
                f"{100 * longest.metres:.0f} cm apart, and after {moment.seconds:.1f} s {100 * moment.metres:.1f} cm"
            )
            remedy = "surfaces that are seen again are doubled; --poses refined or tracked follows the images"
            return [Finding("warning", what, remedy)]
        if self.moment is not None and self.moment.is_beyond(NOISY):
            what = (
                f"the poses are noisy: by them, what frames {self.moment.seconds:.1f} s apart show lies "
                f"{100 * self.moment.metres:.1f} cm apart"
            )
            remedy = "surfaces are doubled by as much; --poses refined or tracked registers each frame to the map"
            return [Finding("warning", what, remedy)]
        return []


def measured(recording: Recording, matched: Matches, breaks: Sequence[int] = ()) -> PoseErrors | None:
    """How far a recording's poses are off its images; None where too few pairs of frames tell.

    matched: its pairs of frames. breaks: frames after which the poses jump, across which nothing is compared.
    """
    if not recording.has_poses:
        return None
    pairs = [pair for pair in matched.pairs if not any(pair.first <= i < pair.last for i in breaks)]
    found = [(pair, *off) for pair in pairs if (off := _off(recording, pair)) is not None]
    moved = [(way, metres / way) for _, metres, depth, way in found if way > MOVED * depth]
    if len(moved) < FEWEST_PAIRS:
        return None
    far = float(np.median([way for way, _ in moved]))  # beside it, noise is small
    of_motion = float(np.median([share for way, share in moved if way >= far]))
    by_gap: dict[int, list[tuple[float, float, float]]] = {}
    for pair, metres, depth, _ in found:
        seconds = float(recording.timestamps[pair.last] - recording.timestamps[pair.first])
        by_gap.setdefault(pair.last - pair.first, []).append((seconds, metres, metres / depth))
    apart = {gap: _medians(rows) for gap, rows in by_gap.items() if len(rows) >= FEWEST_PAIRS}
    later = tuple(apart[gap] for gap in sorted(apart) if gap >= matched.gaps[0])
    return PoseErrors(apart.get(matched.short), later, of_motion)


def _medians(rows: Sequence[tuple[float, float, float]]) -> Distance:
    return Distance(*(float(value) for value in np.median(rows, axis=0)))


def _off(recording: Recording, pair: Pair) -> tuple[float, float, float] | None:
    """Metres by which the given motion sets the points of a pair apart, their depth, and how far they move; medians.
    None where a frame has no pose."""
    T_given = given_motion(recording, pair)
    if T_given is None:
        return None
    points = recording.camera.points(pair.pixels[0], pair.depth[0])
    there = poses.transform(pair.T_last_first, points)
    off = np.linalg.norm(poses.transform(T_given, points) - there, axis=1)
    way = np.linalg.norm(there - points, axis=1)
    return float(np.median(off)), float(np.median(points[:, 2])), float(np.median(way))
