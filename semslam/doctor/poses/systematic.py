"""One error that all given poses share: a delay, a wrong scale, poses of another point or of other axes than the
camera's, or a steady drift; told from pairs of frames whose motion the images tell.

With T_world_body given and X = T_body_camera, the images see X^-1 T_last_first X: hand-eye calibration (Tsai and Lenz,
IEEE T-RA 1989). Each error is measured as if it were the only one, by robust least squares on points of the pairs; the
one that explains most of the misfit is told. Standard errors come from leaving out stretches in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from semslam.doctor.finding import Finding
from semslam.doctor.guesses import SMALL_LAG, of_another_length, of_other_frames
from semslam.doctor.matched import Matches
from semslam.doctor.poses.errors import PoseErrors
from semslam.poses import inverse
from sequences import Sequence as Recording

FEWEST_PAIRS = 12
POINTS = 8  # of a pair
STRETCHES = 6  # left out in turn
# The errors, and where each is among the unknowns: a rotation vector (radians) and a position (metres) of the camera on
# the body, a velocity of the world (metres a second), and the logarithm of what positions have to be multiplied by
UNKNOWNS = {"tilt": slice(0, 3), "lever": slice(3, 6), "drift": slice(6, 9), "scale": slice(9, 10)}
# What is told: more than poses of sound recordings have (1.9 degrees, 3 cm, 3 mm/s, 0.3 %), and beyond doubt
NOTABLE = {"tilt": np.radians(3.0), "lever": 0.08, "drift": 0.006, "scale": 0.04}
MOST = 0.5  # of the misfit: an error that leaves less is told in place of other lengths
LONGEST_LAG = 8  # frames
LATE, SURELY_LATE = 0.9, 0.6  # of the misfit: what a delay leaves that is taken into account, and that is told
HARMLESS = 0.02  # metres that a short delay adds to the misfit, which are no more than a hint; 0.009 in a sound office


class Limits(NamedTuple):
    """How much an error has to explain before it is told."""

    sure: float  # standard errors
    left: float  # of the misfit, at most
    harm: float  # metres of the misfit that it explains, at least


# In SHORT seconds a camera moves one way, along which one slip of sound poses looks like any of the errors (the
# kitchen's: a lever arm of 35 cm, 4.0 standard errors, that leaves 0.76 and explains 7 mm): more is asked for
LIMITS, SHORT, SHORT_LIMITS = Limits(4.5, 0.8, 0.002), 4.0, Limits(6.0, 0.6, 0.006)


class Error(NamedTuple):
    """An error as if it were the only one."""

    value: np.ndarray  # as UNKNOWNS says
    std: float
    left: float  # of the misfit without it

    def is_sure(self, notable: float, limits: Limits, misfit: float) -> bool:
        """Whether it is more than notable, and explains enough of the misfit (metres)."""
        size, explained = float(np.linalg.norm(self.value)), (1 - self.left) * misfit
        return size > max(notable, limits.sure * self.std) and self.left < limits.left and explained > limits.harm


class Shared(NamedTuple):
    """What all poses of a recording may have wrong; misfits are metres, medians over points of pairs of frames."""

    lag: int  # frames from an image to the one whose pose fits it
    seconds: float  # the same
    misfit: float  # as recorded
    in_time: float  # the same at the best lag
    errors: dict[str, Error]  # of the poses at that lag
    limits: Limits

    @property
    def largest(self) -> tuple[str, Error] | None:
        """The error that explains most of the misfit; None where that is not told."""
        name = min(self.errors, key=lambda name: self.errors[name].left)
        error = self.errors[name]
        return (name, error) if error.is_sure(NOTABLE[name], self.limits, self.in_time) else None

    def findings(self) -> list[Finding]:
        """The delay and the largest error; empty where poses share none."""
        found = [] if self.largest is None else [_finding(*self.largest)]
        if self.lag and self.in_time < SURELY_LATE * self.misfit:
            away = abs(self.seconds)
            harmless = away < SMALL_LAG and self.misfit - self.in_time < HARMLESS
            found.append(Finding("hint" if harmless else "warning", *of_other_frames(self.lag, away)))
        return found


def findings_of(shared: Shared | None, off: PoseErrors | None, lengths: list[Finding]) -> list[Finding]:
    """What is told of poses: the error that they share where one explains them, else what is wrong with lengths, and
    how far the poses are off without a reason."""
    found = [] if shared is None or (off is not None and off.another_motion) else shared.findings()
    most = shared is not None and shared.largest is not None and shared.largest[1].left < MOST
    if any(finding.level != "hint" for finding in found) and (most or not lengths):
        return found
    return found + lengths + (off.findings() if off is not None else [])


def _finding(name: str, error: Error) -> Finding:
    size, refined = float(np.linalg.norm(error.value)), "--poses refined or tracked follows the images"
    if name == "tilt":
        what = (
            f"the poses fit the images when the camera is turned by {np.degrees(size):.1f} degrees on what they are of"
        )
        remedy = (
            "multiply each pose from the right by the rotation of the camera, the rotation vector "
            f"({_numbers(error.value)}) rad; or {refined}"
        )
    elif name == "lever":
        what = f"the poses fit the images when the camera is {100 * size:.0f} cm away from the point that they are of"
        remedy = f"multiply each pose from the right by the shift ({_numbers(error.value)}) m; or {refined}"
    elif name == "drift":
        what = f"the poses drift by {100 * size:.1f} cm a second"
        remedy = f"surfaces that are seen again are doubled; {refined}"
    else:
        what, remedy = of_another_length(float(np.exp(error.value[0])))
    return Finding("warning", what, remedy)


def _numbers(vector: np.ndarray) -> str:
    return ", ".join(f"{number:.3f}" for number in vector)


def measured(recording: Recording, matched: Matches, breaks: Sequence[int] = ()) -> Shared | None:
    """What a recording's poses share; None where too few pairs of frames tell.

    matched: its pairs of frames. breaks: frames after which the poses jump, across which nothing is compared.
    """
    pairs = _pairs(recording, matched, breaks)
    if pairs is None or not recording.has_poses:
        return None
    nothing = np.full((4, 4), np.nan)
    T_world_camera = np.stack([nothing if T is None else T for T in recording.poses or ()])
    given = partial(_given, pairs, T_world_camera, np.asarray(recording.timestamps, np.float64))
    reach = min(LONGEST_LAG, len(recording) // 4)
    misfits = {lag: _misfit(_apart(np.zeros(10), given(lag))) for lag in range(-reach, reach + 1)}
    if not np.isfinite(misfits[0]) or misfits[0] == 0:
        return None
    step = float(np.median(np.diff(recording.timestamps)))
    limits = LIMITS if recording.timestamps[-1] - recording.timestamps[0] >= SHORT else SHORT_LIMITS

    def at(lag: int) -> Shared:
        errors = {name: _error(unknown, given(lag)) for name, unknown in UNKNOWNS.items()}
        return Shared(lag, lag * step, misfits[0], misfits[lag], errors, limits)

    in_time, late = at(0), min(misfits, key=lambda lag: (misfits[lag], abs(lag)))
    explained = 1.0 if in_time.largest is None else in_time.largest[1].left
    return at(late) if misfits[late] < misfits[0] * min(LATE, explained) else in_time


class _Pairs(NamedTuple):
    """Pairs of frames, and the motion between the two."""

    first: np.ndarray  # (N,) frames
    last: np.ndarray
    T_last_first: np.ndarray  # (N, 4, 4) as the images tell it
    points: np.ndarray  # (N, POINTS, 3) metres, in the first frame


class _Given(NamedTuple):
    """The same pairs, as far as poses are given for both frames."""

    T_given: np.ndarray  # (N, 4, 4) T_last_first
    T_seen: np.ndarray  # (N, 4, 4)
    points: np.ndarray  # (N, POINTS, 3)
    of_drift: np.ndarray  # (N, 3, 3) takes a velocity of the world to what it adds to T_given's translation

    def without(self, some: np.ndarray) -> _Given:
        return _Given(*(np.delete(part, some, axis=0) for part in self))


def _pairs(recording: Recording, matched: Matches, breaks: Sequence[int]) -> _Pairs | None:
    """Those that tell; None for too few."""
    chosen, points = [], []
    for pair in matched.pairs:
        if len(pair.depth[0]) >= POINTS and not any(pair.first <= i < pair.last for i in breaks):
            some = np.linspace(0, len(pair.depth[0]) - 1, POINTS).astype(int)
            chosen.append(pair)
            points.append(recording.camera.points(pair.pixels[0][some], pair.depth[0][some]))
    if len(chosen) < FEWEST_PAIRS:
        return None
    first, last = np.array([(pair.first, pair.last) for pair in chosen]).T
    return _Pairs(first, last, np.stack([pair.T_last_first for pair in chosen]), np.stack(points))


def _given(pairs: _Pairs, T_world_camera: np.ndarray, seconds: np.ndarray, lag: int) -> _Given:
    """By the poses (F, 4, 4), NaN for none, of the frames that come `lag` later; seconds (F,)."""
    first, last = pairs.first + lag, pairs.last + lag
    known = (np.minimum(first, last) >= 0) & (np.maximum(first, last) < len(seconds))
    known[known] = np.isfinite(T_world_camera[[first[known], last[known]], 0, 0]).all(axis=0)
    first, last = first[known], last[known]
    apart = (seconds[last] - seconds[first])[:, None, None]
    R_last_world = np.swapaxes(T_world_camera[last, :3, :3], 1, 2)
    T_given = inverse(T_world_camera[last]) @ T_world_camera[first]
    return _Given(T_given, pairs.T_last_first[known], pairs.points[known], R_last_world * apart)


def _apart(x: np.ndarray, both: _Given) -> np.ndarray:
    """(N, POINTS, 3) metres between where the poses without the errors x, and where the images put the points."""
    X = np.eye(4)
    X[:3, :3], X[:3, 3] = Rotation.from_rotvec(x[UNKNOWNS["tilt"]]).as_matrix(), x[UNKNOWNS["lever"]]
    T = both.T_given.copy()
    T[:, :3, 3] = np.exp(x[9]) * (T[:, :3, 3] + both.of_drift @ x[UNKNOWNS["drift"]])
    difference = inverse(X) @ T @ X - both.T_seen
    return np.einsum("nij,nkj->nki", difference[:, :3, :3], both.points) + difference[:, None, :3, 3]


def _misfit(apart: np.ndarray) -> float:
    """Metres; infinite for too few pairs."""
    return float(np.median(np.linalg.norm(apart, axis=2))) if len(apart) >= FEWEST_PAIRS else np.inf


def _error(unknown: slice, both: _Given) -> Error:
    """The unknowns that explain most, all others being 0 (the jackknife of blocks: Kuensch, Ann. Stat. 1989)."""
    nothing = np.zeros(10)
    before = _misfit(_apart(nothing, both))
    x = _solved(nothing, unknown, both, before)
    parts = np.array_split(np.arange(len(both.points)), STRETCHES)
    others = np.array([_solved(x, unknown, both.without(part), before)[unknown] for part in parts])
    variance = (STRETCHES - 1) / STRETCHES * ((others - others.mean(axis=0)) ** 2).sum()
    return Error(x[unknown], float(np.sqrt(variance)), _misfit(_apart(x, both)) / before)


def _solved(x: np.ndarray, unknown: slice, both: _Given, usual: float) -> np.ndarray:
    def residual(values: np.ndarray) -> np.ndarray:
        tried = x.copy()
        tried[unknown] = values
        return _apart(tried, both).ravel()

    result = x.copy()
    result[unknown] = least_squares(residual, x[unknown], loss="cauchy", f_scale=2 * usual, max_nfev=20).x
    return result
