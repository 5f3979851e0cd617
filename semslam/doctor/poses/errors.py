"""How far given poses are off the motion that the images tell: noise, a drift, a slip, or another motion altogether.

The points that two frames show are moved from one to the other by the given poses, and by the motion that they tell
themselves. Noise of single poses sets the two apart alike however much time is between the frames; a drift sets them
apart the more, the longer that is; a slip those that it lies between, and no others; poses of another motion by as
much as the camera moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
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
SLIPPED = (0.04, 0.02)  # the same of frames that a slip lies between ...
BESIDE_OTHERS = 3.5  # ... and times what nearly all others are off
FEWEST_ACROSS = 5  # pairs of frames that tell a slip
BESIDE_NOISE = 2.5  # times what frames a moment apart are off; of noise alone, up to 1.8
# Metres a coordinate of noise that is new in each pose; public poses at 10 to 30 Hz have 1.6 mm at most. Jerks look
# like it in a path of few poses a second: then frames a moment apart fit, by less than so many times this. In a hall,
# less than a share of the depth shows nowhere
WAVERING, BESIDE_WAVERING, WAVERING_SHARE = 0.0025, 1.3, 0.001
MOVED = 0.05  # of the depth: points that move less tell no other motion
# Of the way that points move: what poses are off that are no better than none. Noise does not grow with time.
ANOTHER_MOTION, NO_MOTION, GROWING = 0.6, 0.9, 2.0
# The remedy for poses that are new in each frame by some centimetres, whether the images or the path tell it
FOR_NOISE = "surfaces are doubled by as much; --poses refined or tracked registers each frame to the map"


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


class Slip(NamedTuple):
    """A step of the poses that the images do not show; poses before it fit each other, and so do those after it."""

    after: int  # number of a frame: the step is after this one ...
    before: int  # ... and before this one
    metres: float


class PoseErrors(NamedTuple):
    """What the given poses of a recording are off."""

    moment: Distance | None  # frames a moment apart; None for too few pairs
    later: tuple[Distance, ...]  # frames half a second to seconds apart, nearest first
    of_motion: float  # share of the way that points move, where they move far
    slip: Slip | None = None
    wavering: float = 0.0  # metres a coordinate, from frame to frame

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
        """A warning of another motion, a slip, a drift or noise; nothing of poses as good as is usual."""
        if self.another_motion:
            what = f"the poses are of another motion: off by {100 * self.of_motion:.0f} % of the way that points move"
            return [Finding("warning", what, "track the camera instead of taking these poses (--poses tracked)")]
        if self.slip is not None:
            what = (
                f"the poses slip by {100 * self.slip.metres:.0f} cm between frames {self.slip.after} and "
                f"{self.slip.before}, and the images do not"
            )
            remedy = "surfaces seen before and after are doubled; --poses refined or tracked follows the images"
            return [Finding("warning", what, remedy)]
        if self.later and self.later[-1].drifts_beside(self.compared[0]):
            moment, longest = self.compared[0], self.later[-1]
            what = (
                f"the poses drift: by them, what frames {longest.seconds:.1f} s apart show lies "
                f"{100 * longest.metres:.0f} cm apart, and after {moment.seconds:.1f} s {100 * moment.metres:.1f} cm"
            )
            remedy = "surfaces that are seen again are doubled; --poses refined or tracked follows the images"
            return [Finding("warning", what, remedy)]
        if self.moment is not None and self.moment.is_beyond(NOISY):
            # few pairs are a moment apart, and noise sets all gaps apart alike: the usual of all gaps says it better
            usual = sorted(self.compared, key=lambda distance: distance.metres)[len(self.compared) // 2]
            what = (
                f"the poses are noisy: by them, what frames {usual.seconds:.1f} s apart show lies "
                f"{100 * usual.metres:.1f} cm apart"
            )
            return [Finding("warning", what, FOR_NOISE)]
        if self._wavers:
            what = f"the poses waver from frame to frame, by about {100 * self.wavering:.1f} cm along each axis"
            return [Finding("warning", what, FOR_NOISE)]
        return []

    @property
    def _wavers(self) -> bool:
        """Whether poses have noise of their own that shows in a map."""
        if not self.compared:
            return False
        nearest = self.compared[0]
        least = max(WAVERING, WAVERING_SHARE * nearest.metres / max(nearest.of_depth, 1e-9))
        return least < self.wavering < nearest.metres / BESIDE_WAVERING


def motionless(recording: Recording, matched: Matches) -> Finding | None:
    """The error of poses that are all at one place, where the images show that the camera moves away from it."""
    off = measured(recording, matched)
    if off is None or not off.compared or not (longest := off.compared[-1]).is_beyond(DRIFTING):
        return None
    what = (
        f"the poses are all at one place, and the camera is not: by them, what frames {longest.seconds:.1f} s apart "
        f"show lies {100 * longest.metres:.0f} cm apart"
    )
    return Finding("error", what, "the poses need the positions of the camera")


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
    slip = _slip([(pair, metres, metres / depth) for pair, metres, depth, _ in found])
    if slip is not None:
        slip = slip._replace(after=recording.number_of(slip.after), before=recording.number_of(slip.before))
    return PoseErrors(apart.get(matched.short), later, of_motion, slip, _wavering(recording))


def _wavering(recording: Recording) -> float:
    """The standard deviation (metres) of each coordinate that is new in each pose: fourth differences of positions keep
    such noise, and leave little of what a hand does between two frames."""
    positions = [T[:3, 3] for T in recording.poses or () if T is not None]
    differences = np.linalg.norm(np.diff(positions, n=4, axis=0), axis=1) if len(positions) > 4 else np.zeros(0)
    # of noise with deviation 1 they have sqrt(1 + 16 + 36 + 16 + 1), and a vector of three has the median length 1.538
    return float(np.median(differences) / np.sqrt(70) / 1.538) if len(differences) else 0.0


def _slip(found: Sequence[tuple[Pair, float, float]]) -> Slip | None:
    """The slip that the pairs tell, each with what the poses are off across it (metres, share of the depth): all pairs
    around one place are off alike, and the others are not. None where there is no such place."""
    first, last = (np.array([getattr(pair, end) for pair, _, _ in found]) for end in ("first", "last"))
    metres, of_depth = (np.array([row[k] for row in found]) for k in (1, 2))
    best, slip = 0.0, None
    for after, before in pairwise(np.unique([*first, *last])):
        across = (first <= after) & (last >= before)
        if across.sum() < FEWEST_ACROSS or (~across).sum() < FEWEST_PAIRS:
            continue
        contrast = float(np.median(metres[across]) - np.mean(metres[~across]))
        if contrast > best:
            low, high = float(np.quantile(metres[across], 0.25)), float(np.quantile(metres[~across], 0.9))
            best = contrast
            clear = low > SLIPPED[0] and np.median(of_depth[across]) > SLIPPED[1] and low > BESIDE_OTHERS * high
            slip = Slip(int(after), int(before), float(np.median(metres[across]))) if clear else None
    return slip


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
