"""How the poses, the depth and the camera of a recording are meant, told from how well its frames fit each other.

Frames some way apart are warped into each other, as recorded and as the numbers might be meant otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from semslam.frame import Frame, evenly_spread
from semslam.poses import from_rotation_translation, inverse, rotation_angle, transform
from sequences import CorruptFrame, Sequence

PAIRS = 8  # of frames that are warped into each other
PLAUSIBLE_DEPTH = (0.3, 10.0)  # metres, of the median over a recording


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


def _turned_axes(T: np.ndarray) -> np.ndarray:
    return T @ np.diag([1.0, -1.0, -1.0, 1.0])


def _quaternion_read_from(order: list[int]) -> Callable[[np.ndarray], np.ndarray]:
    def pose(T: np.ndarray) -> np.ndarray:
        quaternion = Rotation.from_matrix(T[:3, :3]).as_quat()[order]
        return from_rotation_translation(Rotation.from_quat(quaternion).as_matrix(), T[:3, 3])

    return pose


def _stretched(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda T: from_rotation_translation(T[:3, :3], factor * T[:3, 3])


def _guesses(median_depth: float) -> list[Guess]:
    guesses = [
        Guess(
            "the poses fit the images when they are inverted: they are T_camera_world",
            "invert each pose; the file must hold camera-to-world (T_world_camera)",
            inverse,
        ),
        Guess(
            "the poses fit the images with y and z turned: their camera looks along -z (OpenGL, Blender)",
            "multiply each pose by diag(1, -1, -1, 1) from the right",
            _turned_axes,
        ),
        Guess(
            "the poses fit the images with another order of the quaternion: the file holds qw first",
            "write timestamp tx ty tz qx qy qz qw",
            _quaternion_read_from([1, 2, 3, 0]),
        ),
    ]
    for factor in (1e-3, 1e3):
        what = f"the poses fit the images when their translations are {factor:g} times as long"
        guesses.append(Guess(what, "write the positions in metres", _stretched(factor)))
    for factor in (0.1, 0.2, 5.0, 10.0):
        change = f"{1 / factor:g} times larger" if factor < 1 else f"{factor:g} times smaller"
        if PLAUSIBLE_DEPTH[0] < factor * median_depth < PLAUSIBLE_DEPTH[1]:
            what = f"the images fit the poses when depth is {factor:g} times what was read"
            guesses.append(Guess(what, f"make depth_scale (units per metre) {change}", depth_factor=factor))
    for factor in (0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.25, 1.4, 1.6, 1.8, 2.0):
        what = f"the images fit the poses with a focal length about {factor:g} times as long"
        guesses.append(
            Guess(what, "take fx and fy of the camera and image size of this recording", focal_factor=factor)
        )
    return guesses


@dataclass(frozen=True)
class Fit:
    """How badly frames fit, in the units of `_misfit`, as recorded and under the guess that suits best."""

    as_recorded: float
    under_guess: float
    guess: Guess


def fit(sequence: Sequence) -> Fit | None:
    """Compare every guess with the recording as it is; None without poses, depth or movement."""
    if sequence.poses is None or not sequence.has_depth:
        return None
    pairs = []
    for i, j in _pairs(sequence.poses):
        with suppress(CorruptFrame):
            pairs.append((sequence[i], sequence[j]))
    if not pairs:
        return None
    depth = np.concatenate([a.depth[a.depth > 0][::50] for a, _ in pairs if a.depth is not None])
    guesses = _guesses(float(np.median(depth)) if len(depth) else 1.0)
    misfits = [_misfit(pairs, guess) for guess in guesses]
    best = int(np.argmin(misfits))
    return Fit(_misfit(pairs, Guess("", "")), misfits[best], guesses[best])


def _pairs(poses: tuple[np.ndarray | None, ...]) -> list[tuple[int, int]]:
    """Frames far enough apart that a wrong pose shows, and near enough that they see the same."""
    pairs = []
    for i in evenly_spread(range(max(len(poses) - 1, 1)), PAIRS):
        best, T_w_i = None, poses[i]
        for j in range(i + 1, min(i + 60, len(poses))):
            T_w_j = poses[j]
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


def _misfit(pairs: list[tuple[Frame, Frame]], guess: Guess) -> float:
    """How badly frames fit: 1 for each percent of depth and each 10 grey levels, median over the pairs."""
    return float(np.median([_pair_misfit(a, b, guess) for a, b in pairs]))


def _pair_misfit(a: Frame, b: Frame, guess: Guess) -> float:
    """Warp the points of a into b; a guess under which they hardly meet counts as bad."""
    assert a.depth is not None and b.depth is not None
    assert a.T_world_camera is not None and b.T_world_camera is not None
    nothing = 30.0
    camera = replace(a.camera, fx=a.camera.fx * guess.focal_factor, fy=a.camera.fy * guess.focal_factor)
    step = int(np.ceil(np.sqrt(a.depth.size / 6000)))
    v, u = np.nonzero(a.depth[::step, ::step] > 0)
    v, u = v * step, u * step
    z = a.depth[v, u].astype(np.float64) * guess.depth_factor
    points = np.stack([(u - camera.cx) / camera.fx * z, (v - camera.cy) / camera.fy * z, z], axis=-1)
    T_b_a = inverse(guess.pose(b.T_world_camera)) @ guess.pose(a.T_world_camera)
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
