"""Depth that is a power of the distance, a lens that nothing undoes, and a principal point that is elsewhere: told from
pairs of frames.

A root or a logarithm of the distance, as pictures for the eye hold it, a lens that bends straight lines, and the
principal point of other images bend what a moving camera sees as no motion does. Each pair's motion is solved for
together with one of the three, by the least squares of `least_squares`: no poses are needed. Over the depths of a room
a logarithm is much like a root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.camera import SENSORS, USUAL_SENSOR, Camera
from semslam.doctor.finding import Finding
from semslam.doctor.intrinsics import FEWEST_PAIRS, moving_pairs
from semslam.doctor.least_squares import PIXEL_STD, covariance, error_left_out, normal_equations, settled
from semslam.doctor.matched import Matches, Pair
from semslam.frame import evenly_spread
from sequences import Sequence as Recording

# Metres that the median is made: a power of the distance has no unit, and the sensors' noise has one
MEDIAN_DEPTH = 2.0
# Unknowns: logarithm of a factor; exponent less 1; two shares of the focal length; what is added to a point's distance
# from the axis, as a share, at one focal length from it
FOCAL, POWER, RIGHT, DOWN, LENS = range(5)
PAIRS, POINTS = 40, 80  # pairs, and points of each, at most
SHORTEST = 1.5  # seconds of a recording: in less, motions are too much alike
STRETCHES = 6  # of pairs, left out in turn
FARTHEST = 2.0  # of any unknown; points that ask for more determine none
SURE = 5.0  # standard errors of what is told
# What is told. Noise of depth makes the exponent of sound recordings too small, and never too large: it is -0.31 to
# 0.00 there, 0.2 and more for roots and logarithms, and -0.5 and less for squares
ROOT, SQUARE = 0.25, -0.42  # the exponent less 1 ...
BY_ROOT, BY_SQUARE = 0.85, 0.5  # ... and what it may leave of the misfit, beside another focal length
# Sound recordings have 0.04 and less; where depth is thin 0.1, which hardly changes the misfit (0.96)
NOTABLE_SHIFT, BY_SHIFT = 0.07, 0.87  # of the focal length, and of the misfit
# Sound recordings have 0.05 and less; and what is told leaves so much of the misfit
NOTABLE_LENS, BY_LENS = 0.09, 0.85
JUDGED = 0.04  # the standard error of the principal point, at most, with which it would have been seen
JUDGED_POWER = 0.08  # the same of the exponent


class Solved(NamedTuple):
    """Unknowns (K,) and their standard errors (K,)."""

    values: np.ndarray
    std: np.ndarray
    misfit: float  # squared, in standard deviations of the points; the median


class Bent(NamedTuple):
    """What points tell of depth and of the principal point; None where too few do."""

    straight: Solved | None  # FOCAL alone, where the others are suspect; it may not settle either
    power: Solved | None  # POWER alone: together with the focal length, it may not settle
    lens: Solved | None  # LENS alone, for the same reason
    shift: Solved | None  # FOCAL, RIGHT, DOWN

    def findings(self, camera: Camera) -> list[Finding]:
        """The error of depth that is no distance or, only where that is sound, of the lens or the principal point."""
        if self._is_bent:
            assert self.power is not None
            value, std = self.power.values[0], self.power.std[0]
            what = f"depth is not proportional to distance: the images fit its power of {1 + value:.2f} +- {std:.2f}"
            hint = "square root or its logarithm" if value > 0 else "square"
            return [Finding("error", what, f"write distances along the optical axis; these may be its {hint}")]
        if self._is_curved and self._lowered(self.lens, BY_LENS):
            assert self.lens is not None
            value, std = self.lens.values[0], self.lens.std[0]
            what = f"the images fit a lens that bends straight lines (k1 about {-value:.2f} +- {std:.2f})"
            remedy = "undistort colour and depth, or write the lens's coefficients (distortion in camera.yaml)"
            return [Finding("warning", what, remedy)]
        if not self._is_shifted or self.straight is None or not self._lowered(self.shift, BY_SHIFT):
            return []
        assert self.shift is not None
        right, down = self.shift.values[1:] * (camera.fx, camera.fy)
        what = (
            f"the images fit a principal point {_moved(right, 'to the right of', 'to the left of')} and "
            f"{_moved(down, 'below', 'above')} the stated one"
        )
        remedy = (
            f"were the images cropped? Write about cx: {camera.cx + right:.0f} and cy: {camera.cy + down:.0f} in "
            "camera.yaml (--camera)"
        )
        return [Finding("warning", what, remedy)]

    def not_judged(self) -> list[str]:
        """What points tell too little of, where nothing is found."""
        unsure = []
        if self.power is None or self.power.std[0] > JUDGED_POWER:
            unsure.append("whether depth is proportional to distance")
        if self.shift is None or self.shift.std[1:].max() > JUDGED or self._is_shifted:
            unsure.append("the principal point")
        return [f"{' and '.join(unsure)} (points that frames share tell too little)"] if unsure else []

    @property
    def is_suspect(self) -> bool:
        """Whether anything differs so much that it would be told, if the focal length alone does not explain it."""
        return self._is_bent or self._is_curved or self._is_shifted

    @property
    def _is_bent(self) -> bool:
        if self.power is None or abs(self.power.values[0]) < SURE * self.power.std[0]:
            return False
        value, lowered = self.power.values[0], partial(self._lowered, self.power)
        return bool((value > ROOT and lowered(BY_ROOT)) or (value < SQUARE and lowered(BY_SQUARE)))

    @property
    def _is_curved(self) -> bool:
        if self.lens is None:
            return False
        return bool(abs(self.lens.values[0]) > max(NOTABLE_LENS, SURE * self.lens.std[0]))

    @property
    def _is_shifted(self) -> bool:
        if self.shift is None:
            return False
        return bool(np.any(np.abs(self.shift.values[1:]) > np.maximum(NOTABLE_SHIFT, SURE * self.shift.std[1:])))

    def _lowered(self, solved: Solved | None, share: float) -> bool:
        """Whether unknowns besides the focal length explain the points, and that alone does not."""
        return solved is not None and (self.straight is None or solved.misfit < share * self.straight.misfit)


def _moved(pixels: float, ahead: str, back: str) -> str:
    return f"{abs(pixels):.0f} pixels {ahead if pixels > 0 else back}"


def measured(recording: Recording, matched: Matches, sensor: str | None = None) -> Bent:
    """What pairs of frames tell. sensor: the depth camera, of `SENSORS`; None as the recording says."""
    pairs = moving_pairs(matched)
    if len(pairs) < FEWEST_PAIRS or recording.timestamps[-1] - recording.timestamps[0] < SHORTEST:
        return Bent(None, None, None, None)
    larger = MEDIAN_DEPTH / float(np.median(np.concatenate([pair.depth[0] for pair in pairs])))
    pairs = [_thinned(pair, larger) for pair in evenly_spread(pairs, PAIRS)]
    solve = partial(_solved, pairs, recording.camera, SENSORS[sensor or recording.sensor or USUAL_SENSOR])
    found = Bent(None, solve((POWER,)), solve((LENS,)), solve((FOCAL, RIGHT, DOWN)))
    return found._replace(straight=solve((FOCAL,))) if found.is_suspect else found


def _thinned(pair: Pair, factor: float) -> Pair:
    """The same with a few of its points, and all lengths multiplied."""
    thin = pair.only(evenly_spread(range(len(pair.depth[0])), POINTS))
    T = pair.T_last_first.copy()
    T[:3, 3] *= factor
    return replace(thin, depth=(factor * thin.depth[0], factor * thin.depth[1]), T_last_first=T)


def _solved(pairs: Sequence[Pair], camera: Camera, noise: tuple[float, float], free: tuple[int, ...]) -> Solved | None:
    """The free unknowns, the others being as stated; None where the least squares do not settle."""
    chosen = list(free)

    def equations(i: int, T: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        every = np.zeros(5)
        every[chosen] = x
        return _equations(pairs[i], T, camera, every, chosen, noise)

    try:
        found = settled(equations, [pair.T_last_first for pair in pairs], [FARTHEST] * len(free))
        return found and Solved(found.values, error_left_out(found.H, found.g, STRETCHES), found.misfit)
    except np.linalg.LinAlgError:  # points that determine nothing
        return None


def _points(pixels: np.ndarray, depth: np.ndarray, camera: Camera, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3) in the camera, by the unknowns, and their derivatives (N, 3, 5)."""
    z = MEDIAN_DEPTH * (depth / MEDIAN_DEPTH) ** (1 + x[POWER])
    focal = np.exp(x[FOCAL])
    right = (pixels[:, 0] - camera.cx) / camera.fx - x[RIGHT]
    down = (pixels[:, 1] - camera.cy) / camera.fy - x[DOWN]
    squared = right**2 + down**2
    straight = 1 + x[LENS] * squared
    points = np.stack([right * straight / focal * z, down * straight / focal * z, z], axis=-1)
    derivatives = np.zeros((len(z), 3, 5))
    derivatives[:, :2, FOCAL] = -points[:, :2]
    derivatives[:, :, POWER] = points * np.log(depth / MEDIAN_DEPTH)[:, None]
    derivatives[:, 0, RIGHT] = derivatives[:, 1, DOWN] = -z / focal  # as without a lens
    derivatives[:, 0, LENS], derivatives[:, 1, LENS] = right * squared / focal * z, down * squared / focal * z
    return points, derivatives


def _equations(
    pair: Pair, T_b_a: np.ndarray, camera: Camera, x: np.ndarray, free: list[int], noise: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H and g of the motion's twist (6,) and the free unknowns, H @ step = g; and the misfit (N,) of the points."""
    (a, D_a), (b, D_b) = (_points(p, depth, camera, x) for p, depth in zip(pair.pixels, pair.depth))
    R, moved = T_b_a[:3, :3], poses.transform(T_b_a, a)
    residual = b - moved
    J = [np.broadcast_to(-np.eye(3), (len(a), 3, 3)), poses.skew(moved), (D_b - R @ D_a)[:, :, free]]
    focal = np.sqrt(camera.fx * camera.fy) * np.exp(x[FOCAL])
    spread = covariance(b, focal, (PIXEL_STD, *noise)) + R @ covariance(a, focal, (PIXEL_STD, *noise)) @ R.T
    return normal_equations(np.concatenate(J, axis=-1), residual, spread)
