"""How long the focal length and the depth really are, measured from points that two images show, with standard errors.

A point of one frame, at the depth that was read there, has to lie where the other frame shows it, at the depth that is
read there. With given poses, turning the camera tells the focal length and moving it tells the unit of depth. Without
poses each pair's motion is solved for, too: then the depth that a turn changes tells the focal length, and the unit of
depth cannot be told. Both are rows of one robust least squares whose residuals are whitened by the errors of pixels and
depth on both sides (Gauss-Helmert); the standard error comes from leaving out stretches of the recording in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.camera import SENSORS, USUAL_SENSOR, Camera
from semslam.doctor.finding import Finding
from semslam.doctor.least_squares import PIXEL_STD, Settled, covariance, error_left_out, normal_equations, settled
from semslam.doctor.matched import SECONDS_APART, Matches, Pair, given_motion
from sequences import Sequence as Recording

SHORTEST = 6.0  # seconds of a recording: in less, too few motions differ to tell how sure the figures are ...
GROSS, GROSS_SURE, SHORTEST_GROSS = 0.12, 6.0, 1.5  # ... and only so much is told, in no fewer seconds
FEWEST_PAIRS = 6
MOVED = 12.0  # pixels, the median of a pair: beside less, the errors of features would shift what they tell
FEWEST_TURNED = 8  # pairs; where there are so many, those that turn less are left out: noise bends what they tell
TURNED = np.radians(5.0)
STRETCHES = (3, 10)  # fewest and most, each about as long as a pair, that are left out in turn
COMMON = 0.1  # standard deviations of a point, by which all may be off alike
MODEL_STD = 0.005  # of the length: what sound recordings are off besides, as no lens is quite a pinhole
# Pixels: what the standard deviation of a feature may be, besides PIXEL_STD. How errors are shared between pixels and
# depth shifts a focal length that is told by depth (errors in variables); the shift belongs to its error.
OTHER_STDS = (0.3, 1.2)
FARTHEST = 20.0  # factor: points that ask for a focal length farther from what is stated determine none
NOTABLE, SURE = 0.02, 5.0  # of the length, and standard errors: what is told of a difference


class Length(NamedTuple):
    """A length as a factor of what the recording says, and the relative standard error of it."""

    factor: float
    std: float

    @property
    def decisive(self) -> bool:
        """Whether the recording is wrong beyond doubt, by more than a little."""
        return abs(np.log(self.factor)) > max(NOTABLE, SURE * self.std)

    @property
    def gross(self) -> bool:
        """Whether it is wrong by so much that a short recording tells it."""
        return abs(np.log(self.factor)) > max(GROSS, GROSS_SURE * self.std)

    def __str__(self) -> str:
        change, std = 100 * (self.factor - 1), 100 * self.std * self.factor
        return f"{abs(change):.1f} +- {std:.1f} % {'longer' if change > 0 else 'shorter'}"


@dataclass(frozen=True)
class Intrinsics:
    """What the images tell of a recording's camera and depth."""

    focal: Length  # fx and fy
    depth: Length | None  # of every reading; None without poses
    pairs: int  # of frames

    def __str__(self) -> str:
        of_depth = "" if self.depth is None else f", depth by the poses {self.depth} than it was read"
        return f"focal length {self.focal} than stated{of_depth} (from {self.pairs} pairs of frames)"


def measured(
    recording: Recording, by_poses: bool = True, sensor: str | None = None, matched: Matches | None = None
) -> Intrinsics | None:
    """The focal length, and with poses the unit of depth; None where too few points are found again, or they disagree,
    and for short recordings where nothing is grossly wrong.

    by_poses: whether poses that the recording has are taken as right; else motions are solved for. sensor: the depth
    camera, of `SENSORS`; None as the recording says, or the usual. matched: its pairs of frames, where they are known.
    """
    given = by_poses and recording.has_poses
    matched, noise = matched or Matches(recording), SENSORS[sensor or recording.sensor or USUAL_SENSOR]
    pairs = _usable(recording, matched, given)
    if (lengths := _lengths(pairs, recording, given, noise)) is None:
        return None
    if given and lengths[0].decisive:
        free = _lengths(_usable(recording, matched, given=False), recording, False, noise)
        lengths[0] = _confirmed(lengths[0], free)
    short = recording.timestamps[-1] - recording.timestamps[0] < SHORTEST
    if short and not any(length.gross for length in lengths):
        return None
    return Intrinsics(lengths[0], lengths[1] if given else None, len(pairs))


def _confirmed(by_poses: Length, free: Sequence[Length] | None) -> Length:
    """A focal length that given poses tell, less sure where the points by themselves fit the stated one better: poses
    of another moment, or of another point than the camera's, bend what they tell."""
    if free is None or (apart := abs(np.log(by_poses.factor / free[0].factor))) < abs(np.log(free[0].factor)):
        return by_poses
    return by_poses._replace(std=float(np.hypot(by_poses.std, apart)))


def _lengths(
    pairs: Sequence[Pair], recording: Recording, given: bool, noise: tuple[float, float]
) -> list[Length] | None:
    """The focal length and, with given poses, depth; None where too few pairs tell, or least squares do not settle."""
    if len(pairs) < FEWEST_PAIRS:
        return None
    solve = partial(_solved, pairs, recording.camera, noise, given)
    try:
        solved, *others = [solve(std) for std in (PIXEL_STD, *OTHER_STDS)]
    except np.linalg.LinAlgError:  # points that determine nothing
        return None
    if solved is None or any(other is None for other in others):
        return None
    seconds = recording.timestamps[pairs[-1].first] - recording.timestamps[pairs[0].first]
    std = error_left_out(solved.H, solved.g, int(np.clip(seconds / SECONDS_APART[-1], *STRETCHES)))
    shift = np.ptp([other.values for other in others if other is not None], axis=0) / 2
    # what an error that all points share, in one direction, makes of the unknowns
    points = sum(len(pair.pixels[0]) for pair in pairs)
    common = COMMON * np.sqrt(points * np.diag(np.linalg.inv(solved.H.sum(axis=0))))
    std = np.sqrt(std**2 + shift**2 + common**2 + MODEL_STD**2)
    return [Length(float(np.exp(x)), float(s)) for x, s in zip(solved.values, std)]


def findings_of(found: Intrinsics | None, camera: Camera) -> list[Finding]:
    """What is wrong beyond doubt, with the numbers to write instead."""
    findings = []
    if found is not None and found.focal.decisive:
        what = f"the images fit a focal length {found.focal} than stated"
        fx, fy = found.focal.factor * camera.fx, found.focal.factor * camera.fy
        findings.append(Finding("warning", what, f"write fx: {fx:.1f} and fy: {fy:.1f} in camera.yaml (--camera)"))
    if found is not None and found.depth is not None and found.depth.decisive:
        factor = found.depth.factor
        what = (
            f"the images fit the poses when depth is {found.depth} than it was read, or when the positions are "
            f"{1 / factor:.3f} times as long"
        )
        remedy = f"make depth_scale (units per metre) {1 / factor:.3f} times as large, or the positions as long"
        findings.append(Finding("warning", what, remedy))
    return findings


def doubtful(camera: Camera) -> list[Finding]:
    """What no camera that maps rooms has: a far principal point, hardly any or all of the view, stretched pixels."""
    findings = []
    off = max(abs(camera.cx / (camera.width - 1) - 0.5), abs(camera.cy / (camera.height - 1) - 0.5))
    if off > 0.15:
        what = (
            f"the principal point ({camera.cx:.1f}, {camera.cy:.1f}) is far from the middle of the "
            f"{camera.width}x{camera.height} images"
        )
        remedy = "the intrinsics may be those of another image size: scale fx, fy, cx, cy with the images"
        findings.append(Finding("error", what, remedy))
    if not 25 < camera.fov < 130:
        what = f"fx {camera.fx:.1f} makes the images {camera.fov:.0f} degrees wide; depth cameras see 40 to 100"
        findings.append(Finding("error", what, "give the focal length in pixels of these images"))
    if not 0.9 < camera.fx / camera.fy < 1.1:
        what = f"fx {camera.fx:.1f} and fy {camera.fy:.1f} differ by more than a tenth"
        findings.append(Finding("warning", what, "pixels of most cameras are square: were the images stretched?"))
    return findings


def moving_pairs(matched: Matches) -> list[Pair]:
    """Those whose frames are far enough apart, and whose points move far enough, to tell lengths."""
    return [pair for pair in matched.pairs if pair.last - pair.first >= matched.gaps[0] and pair.flow >= MOVED]


def _usable(recording: Recording, matched: Matches, given: bool) -> list[Pair]:
    """Pairs that tell lengths, with the given motions; where these are to be solved for, those that turn most."""
    times = recording.timestamps
    if len(recording) < 2 or times[-1] - times[0] < SHORTEST_GROSS:
        return []
    pairs = moving_pairs(matched)
    if given:
        moved = ((pair, given_motion(recording, pair)) for pair in pairs)
        return [replace(pair, T_last_first=T) for pair, T in moved if T is not None]
    turned = [pair for pair in pairs if poses.rotation_angle(pair.T_last_first) > TURNED]
    return pairs if len(turned) < FEWEST_TURNED else turned


# The least squares. Unknown are the logarithms of the factors of the focal length and, with poses, of depth.


def _solved(
    pairs: Sequence[Pair], camera: Camera, noise: tuple[float, float], given: bool, pixel_std: float
) -> Settled | None:
    """The unknowns, (1,) or, with given poses, (2,); None where they do not settle."""

    def equations(i: int, T: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return _equations(pairs[i], T, camera, x, (pixel_std, *noise))

    farthest = (np.log(FARTHEST), np.inf) if given else (np.log(FARTHEST),)
    return settled(equations, [pair.T_last_first for pair in pairs], farthest, given)


def _equations(
    pair: Pair, T_b_a: np.ndarray, camera: Camera, x: np.ndarray, errors: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """H and g of the unknowns, or with one unknown of the motion's twist (6,) before it, H @ step = g; and the misfit
    (N,) of the points."""
    log_focal, log_depth = x[0], x[1] if len(x) > 1 else 0.0
    R = T_b_a[:3, :3]
    depth_a, depth_b = (depth * np.exp(log_depth) for depth in pair.depth)
    now = camera.with_focal(camera.fx * np.exp(log_focal))
    a, b = (now.points(p, d) for p, d in zip(pair.pixels, (depth_a, depth_b)))
    moved = poses.transform(T_b_a, a)
    residual = b - moved
    flat = np.array([1.0, 1.0, 0.0])
    columns = [(a * flat) @ R.T - b * flat]  # a longer focal length brings points nearer to the axis
    if len(x) > 1:
        columns.append(b - a @ R.T)
    J = np.stack(columns, axis=-1)
    if len(x) == 1:
        J = np.concatenate([np.broadcast_to(-np.eye(3), (len(a), 3, 3)), poses.skew(moved), J], axis=-1)
    focal = np.sqrt(now.fx * now.fy)
    spread = covariance(b, focal, errors) + R @ covariance(a, focal, errors) @ R.T
    return normal_equations(J, residual, spread)
