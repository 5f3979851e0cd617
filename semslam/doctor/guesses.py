"""How the poses, the depth and the camera of a recording are meant, told from how well its frames fit each other.

Every reading of the numbers that is known puts the points of one frame into another: the one that fits best, and much
better than the recorded one, is the finding. Points are followed through the images where these have texture; else
whole frames some way apart are warped into each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np
from scipy.spatial.transform import Rotation

from semslam.doctor import flow
from semslam.doctor.finding import Finding, counted
from semslam.doctor.flow import Tracks
from semslam.doctor.intrinsics import Intrinsics
from semslam.doctor.intrinsics import findings_of as findings_of_intrinsics
from semslam.frame import Frame, evenly_spread
from semslam.poses import from_rotation_translation, inverse, rotation_angle, transform
from sequences import Sequence as Recording

PAIRS = 8  # of frames that are warped into each other
UNITS_OF_DEPTH = (0.1, 0.2, 5.0, 10.0)  # factors of one for another
UNITS = (*UNITS_OF_DEPTH, 1e-3, 1e-2, 1e2, 1e3)  # the same of positions, too
A_UNIT = 0.1  # of the logarithm of a factor: what is so near to that of a unit is one
USUAL_DEPTH = (0.3, 10.0)  # metres, of the median over a recording
BETTER = 0.65  # of the recorded misfit: what another reading must reach to be believed
ALIKE = 1.05  # times the best: readings that fit as well, of which the first in the list is taken
ANY_LENGTH = 1.3  # times better than all else is what one of many factors of a length must fit: a unit is likelier
# Of the way that points move: poses that come two frames late, of another camera, reach 0.51 in 12 frames; shuffled
# ones have 0.68 and more, mostly over 0.8
EXPLAINED, HOPELESS = 0.25, 0.65
NOTABLE_WARP = 1.5  # misfit; Kinect noise alone makes about 1
LONGEST_LAG = 0.7  # seconds
SMALL_LAG = 0.08  # seconds; what cameras that are not triggered together are apart


def _as_recorded(T: np.ndarray) -> np.ndarray:
    return T


@dataclass(frozen=True)
class Guess:
    """One way in which poses, depth or camera may be meant otherwise."""

    what: str
    remedy: str
    pose: Callable[[np.ndarray], np.ndarray] = _as_recorded
    depth_factor: float = 1.0
    focal_factor: float = 1.0
    lag: int = 0  # frames from an image to the one whose pose it has
    level: str = "error"
    of_length: bool = False  # one of many factors of a length, not a unit

    def motion(self, recording: Recording, first: int, last: int) -> np.ndarray | None:
        """T_last_first (4, 4) of two frames by this reading of the poses; None where one has none."""
        posed = recording.poses or ()
        first, last = first + self.lag, last + self.lag
        if not (0 <= first < len(posed) and 0 <= last < len(posed)):
            return None
        a, b = posed[first], posed[last]
        return None if a is None or b is None else inverse(self.pose(b)) @ self.pose(a)


AS_RECORDED = Guess("", "")


@dataclass(frozen=True)
class Fit:
    """How badly frames fit, as recorded and under the guess that suits best; pixels, or the units of `_warped`."""

    as_recorded: float
    under_guess: float
    guess: Guess
    notable: float  # what sound recordings stay below
    explained: float  # what a guess has to stay below
    hopeless: float  # above that the poses are of something else


def fit(recording: Recording, tracks: Sequence[Tracks], measured: Intrinsics | None) -> Fit | None:
    """Compare every guess with the recording as it is; None without poses, depth or movement.

    measured: focal length and depth that are guessed first, if they differ from the recording's; None if not told.
    """
    if not recording.has_poses or not recording.has_depth:
        return None
    depth = flow.median_depth(recording)
    if followed := len(tracks) >= flow.FEWEST_STRETCHES:
        moved = float(np.median([t.flow for t in tracks]))
        notable = flow.notable(recording.camera)
        limits = (notable, max(2 * notable, EXPLAINED * moved), max(4 * notable, HOPELESS * moved))
        cost: Callable[[Guess], float] = lambda guess: flow_misfit(recording, tracks, guess)  # noqa: E731
    else:
        pairs = [
            (a, b)
            for i, j in _pairs(recording.poses or ())
            if (a := recording.try_read(i)) is not None and (b := recording.try_read(j)) is not None
            if a.depth is not None and b.depth is not None and a.depth.any() and b.depth.any()
        ]
        if not pairs:
            return None
        limits = (NOTABLE_WARP, 3.5, 7.0)
        cost = lambda guess: float(np.median([_warped(recording, a, b, guess) for a, b in pairs]))  # noqa: E731
    recorded = cost(AS_RECORDED)
    if recorded < limits[0]:
        return Fit(recorded, recorded, AS_RECORDED, *limits)
    guesses = [*_measured(measured, recording), *_guesses(depth), *_lags(recording)]
    if not followed:  # noise alone makes some length fit whole frames better
        guesses = [guess for guess in guesses if not guess.of_length]
    costs = [cost(guess) for guess in guesses]
    believed = [c * (ANY_LENGTH if guess.of_length else 1) for guess, c in zip(guesses, costs)]
    best = next(i for i, c in enumerate(believed) if c <= ALIKE * min(believed))
    return Fit(recorded, costs[best], guesses[best], *limits)


def findings_of(found: Fit | None) -> list[Finding]:
    """The other reading that fits, or that none does; empty where the recorded one fits."""
    if found is None or found.as_recorded < found.notable:
        return []
    if found.under_guess < min(BETTER * found.as_recorded, found.explained):
        return [Finding(found.guess.level, found.guess.what, found.guess.remedy)]  # type: ignore[arg-type]
    if found.as_recorded > found.hopeless:
        what = "frames do not fit each other by their poses, nor by any other reading of them that is known"
        return [Finding("warning", what, "track the camera instead of taking these poses (--poses tracked)")]
    return []


# The guesses, in the order in which they are believed


def _measured(found: Intrinsics | None, recording: Recording) -> list[Guess]:
    """The focal length and depth that were measured where they contradict the recording beyond doubt."""
    told = findings_of_intrinsics(found, recording.camera)
    if found is None or found.depth is None or not told:
        return []
    if any(abs(np.log(found.depth.factor / unit)) < A_UNIT for unit in UNITS):
        return []  # which is told by its round number
    what, remedy = ("; ".join(parts) for parts in zip(*((finding.what, finding.remedy) for finding in told)))
    return [Guess(what, remedy, depth_factor=found.depth.factor, focal_factor=found.focal.factor)]


def _guesses(median_depth: float) -> list[Guess]:
    guesses = [
        Guess(
            "the poses fit the images when they are inverted: they are T_camera_world",
            "invert each pose: the file must hold T_world_camera, or map it with --pose-convention inverted",
            inverse,
        ),
        Guess(
            "the poses fit the images with y and z turned: their camera looks along -z (OpenGL, Blender)",
            "multiply each pose by diag(1, -1, -1, 1) from the right, or map it with --pose-convention opengl",
            _with_axes(np.diag([1.0, -1.0, -1.0])),
        ),
        Guess(
            "the poses fit the images with another order of the quaternion: the file holds qw first",
            "write timestamp tx ty tz qx qy qz qw, or map it with --pose-convention qw-first",
            quaternion_read_from([1, 2, 3, 0]),
        ),
    ]
    for axis, signs in {"x": (-1, 1, 1), "y": (1, -1, 1), "z": (1, 1, -1)}.items():
        what = f"the poses fit the images when they are mirrored along {axis}: they are left-handed (Unity, Unreal)"
        numbers = ", ".join(map(str, signs))
        remedy = f"multiply each pose from the left and from the right by diag({numbers}, 1)"
        guesses.append(Guess(what, remedy, _mirrored(np.diag([*signs, 1.0]))))
    for factor in (1e-3, 1e-2, 1e3):
        what = f"the poses fit the images when their translations are {factor:g} times as long"
        remedy = "write the positions in metres; runs read them in the unit that the images leave no doubt of"
        guesses.append(Guess(what, remedy if factor < 1 else "write the positions in metres", stretched(factor)))
    for factor in UNITS_OF_DEPTH:
        if USUAL_DEPTH[0] < factor * median_depth < USUAL_DEPTH[1]:
            what = f"the images fit the poses when depth is {factor:g} times what was read"
            remedy = f"make --depth-scale (depth units per metre) {change_of_scale(factor)}"
            guesses.append(Guess(what, remedy, depth_factor=factor))
    for factor in (0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0):
        what = f"the images fit the poses with a focal length about {factor:g} times as long"
        guesses.append(
            Guess(
                what,
                "take fx and fy of the camera and image size of this recording",
                focal_factor=factor,
                of_length=True,
            )
        )
    return guesses + _axes() + _scales()


def change_of_scale(factor: float) -> str:
    """What to do to a scale of depth, in units per metre, where depth is `factor` times what was read."""
    return f"{1 / factor:g} times larger" if factor < 1 else f"{factor:g} times smaller"


def _axes() -> list[Guess]:
    """Every way to name a camera's axes that keeps them right-handed, and the same of inverted poses."""
    names = "xyz"
    guesses = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        axes = np.zeros((3, 3))
        axes[list(order), range(3)] = signs
        if np.linalg.det(axes) < 0 or np.array_equal(axes, np.eye(3)):
            continue
        right, down, forward = (f"{'+' if sign > 0 else '-'}{names[axis]}" for axis, sign in zip(order, signs))
        what = f"the poses fit the images when their camera has right along {right}, down along {down}, forward along "
        remedy = f"multiply each pose from the right by the matrix of columns {right}, {down}, {forward}"
        guesses.append(Guess(f"{what}{forward}", remedy, _with_axes(axes)))
        guesses.append(
            Guess(
                f"{what}{forward}, and are inverted (T_camera_world)",
                f"invert each pose, then {remedy}",
                _with_axes(axes, inverse),
            )
        )
    return guesses


def _scales() -> list[Guess]:
    """Positions that are longer or shorter by any factor from 1/5 to 5."""
    guesses = []
    for factor in np.exp(np.linspace(np.log(0.2), np.log(5.0), 93)):
        if abs(factor - 1) > 0.03:
            guesses.append(Guess(*of_another_length(factor), stretched(float(factor)), of_length=True))
    return guesses


def of_another_length(factor: float) -> tuple[str, str]:
    """What is said where positions are to be `factor` times as long, and what helps."""
    remedy = (
        "write the positions in the metres of the depth images; if it is these that are off, make depth_scale "
        f"(units per metre) {factor:.2f} times as large"
    )
    return f"the images fit the poses when the positions are {factor:.2f} times as long", remedy


def _lags(recording: Recording) -> list[Guess]:
    """Poses that belong to images some frames earlier or later."""
    interval = float(np.median(np.diff(recording.timestamps))) if len(recording) > 1 else 0.0
    reach = min(int(LONGEST_LAG / interval) if interval > 0 else 15, 20, len(recording) // 4)
    guesses = []
    for lag in sorted((*range(-reach, 0), *range(1, reach + 1)), key=abs):
        seconds = abs(lag) * interval
        small = seconds <= SMALL_LAG + interval / 2  # whole frames round a delay
        guesses.append(Guess(*of_other_frames(lag, seconds), lag=lag, level="hint" if small else "error"))
    return guesses


def of_other_frames(lag: int, seconds: float) -> tuple[str, str]:
    """What is said where images have the poses of `lag` frames later, which are `seconds` away, and what helps."""
    later, how = ("later", f"take {seconds:.2f} s from") if lag > 0 else ("earlier", f"add {seconds:.2f} s to")
    what = f"the images fit the poses of {counted(abs(lag), 'frame')} {later} ({seconds:.2f} s) better than their own"
    return what, f"{how} the times of the poses, or shift their lines by {abs(lag)}; --poses tracked needs none"


def _with_axes(
    axes: np.ndarray, first: Callable[[np.ndarray], np.ndarray] = _as_recorded
) -> Callable[[np.ndarray], np.ndarray]:
    turn = from_rotation_translation(axes, np.zeros(3))
    return lambda T: first(T) @ turn


def _mirrored(mirror: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    return lambda T: mirror @ T @ mirror


def quaternion_read_from(order: list[int]) -> Callable[[np.ndarray], np.ndarray]:
    def pose(T: np.ndarray) -> np.ndarray:
        quaternion = Rotation.from_matrix(T[:3, :3]).as_quat()[order]
        return from_rotation_translation(Rotation.from_quat(quaternion).as_matrix(), T[:3, 3])

    return pose


def stretched(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda T: from_rotation_translation(T[:3, :3], factor * T[:3, 3])


# How badly a guess fits


def flow_misfit(recording: Recording, tracks: Sequence[Tracks], guess: Guess) -> float:
    """Pixels that followed points lie off, median over the stretches that the guess has poses for."""
    camera = recording.camera
    camera = replace(camera, fx=camera.fx * guess.focal_factor, fy=camera.fy * guess.focal_factor)
    found = []
    for t in tracks:
        T_last_first = guess.motion(recording, t.first, t.last)
        if T_last_first is not None:
            found.append(replace(t, depth=t.depth * guess.depth_factor).residual(camera, T_last_first))
    return float(np.median(found)) if len(found) > 0.6 * len(tracks) else np.inf


def _pairs(posed: tuple[np.ndarray | None, ...]) -> list[tuple[int, int]]:
    """Frames far enough apart that a wrong pose shows, and near enough that they see the same."""
    pairs = []
    for i in evenly_spread(range(max(len(posed) - 1, 1)), PAIRS):
        best, T_w_i = None, posed[i]
        for j in range(i + 1, min(i + 60, len(posed))):
            T_w_j = posed[j]
            if T_w_i is None or T_w_j is None:
                continue
            T_i_j = inverse(T_w_i) @ T_w_j
            moved = max(np.linalg.norm(T_i_j[:3, 3]) / 0.15, rotation_angle(T_i_j) / np.radians(8))
            if moved > 0.2:
                best = (i, j)
            if moved > 1:
                break
        if best is not None:
            pairs.append(best)
    return pairs


def _warped(recording: Recording, a: Frame, b: Frame, guess: Guess) -> float:
    """Warp the points of a into b: 1 for each percent of depth and each 10 grey levels that they differ there.

    A guess under which they hardly meet counts as bad.
    """
    nothing = 30.0
    T_b_a = guess.motion(recording, a.index, b.index)
    if a.depth is None or b.depth is None or T_b_a is None:
        return nothing
    camera = replace(a.camera, fx=a.camera.fx * guess.focal_factor, fy=a.camera.fy * guess.focal_factor)
    step = int(np.ceil(np.sqrt(a.depth.size / 6000)))
    v, u = np.nonzero(a.depth[::step, ::step] > 0)
    v, u = v * step, u * step
    z = a.depth[v, u].astype(np.float64) * guess.depth_factor
    points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=-1)
    points = transform(T_b_a, points)
    ahead = points[:, 2] > 0.05 * guess.depth_factor
    u, v, points = u[ahead], v[ahead], points[ahead]
    to = np.rint(camera.project(points))
    inside = (to >= 0).all(axis=1) & (to[:, 0] < camera.width) & (to[:, 1] < camera.height)
    u, v, points, to = u[inside], v[inside], points[inside], to[inside].astype(int)
    seen = b.depth[to[:, 1], to[:, 0]] * guess.depth_factor
    both = seen > 0
    if both.sum() < max(50, 0.1 * len(z)):
        return nothing
    depth_error = float(np.median(np.abs(seen[both] / points[both, 2] - 1)))
    grey_a = a.color[v[both], u[both]].mean(axis=1)
    grey_b = b.color[to[both, 1], to[both, 0]].mean(axis=1)
    difference = grey_a - grey_b
    grey_error = float(np.minimum(np.abs(difference - np.median(difference)), 60).mean())
    return min(nothing, 100 * depth_error + grey_error / 10)
