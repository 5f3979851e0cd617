"""What another system's trajectory was probably misread as: its convention of rotations, or the clock of its times.

Errors here are relative: of the camera centres after the best similarity, over the reference's spread, and of the
orientations, in radians. What is told explains two thirds of an error or more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.metrics.trajectory import Alignment, umeyama
from semslam.trajectory import Trajectory

EXPLAINED = 1 / 3  # of an error, at most, that may remain of what is told
TURNED = np.radians(10)  # RMS of orientations that is an error of its kind
SURE = 3.0  # times what a path's errors, over its second extent, may turn it
FITTING = 0.25  # relative error of positions, at most, of a path that is the reference's
FLAT = 0.05  # of a path's longest extent that its second one has, at least, to tell how the path is turned
OFF = 0.01  # relative error from which a delay is looked for
LATEST = 1.0  # seconds
STEP = 0.02  # seconds
MET = 0.5  # of the poses that a delay leaves with a reference, at least
FEWEST = 10  # poses
MOST = 2000  # poses that are looked at


class Fit(NamedTuple):
    """How a trajectory fits its reference, pose by pose."""

    position: float  # RMSE after the best similarity, over the reference's spread
    rotation: float  # radians, RMS
    constant: np.ndarray  # (3,) rotation vector of the one turn, camera frame, that explains most of it
    remaining: float  # radians, RMS with that turn undone

    @property
    def error(self) -> float:
        return float(np.hypot(self.position, self.rotation))


def misread_convention(estimate: Trajectory, reference: Trajectory) -> str | None:
    """One line on how the rotations of poses that belong together, one by one, were meant; None where as read."""
    P, Q = estimate.T_world_camera, reference.T_world_camera
    extents = np.linalg.svd(reference.positions - reference.positions.mean(axis=0), compute_uv=False)
    if len(P) < FEWEST or extents[1] <= FLAT * extents[0]:
        return None
    read = _fit(P, Q)
    slimness = float(np.linalg.norm(extents) / extents[1])

    def fits(fit: Fit) -> bool:
        """Whether it is the reference's path, which tells how it is turned better than orientations are off as read."""
        return fit.position < FITTING and read.rotation > TURNED + SURE * fit.position * slimness

    others = {
        "the quaternions of the trajectory have w first; write them as x y z w": _with_w_first(P),
        "the poses of the trajectory are world to camera; invert them": poses.inverse(P),
        "the rotations of the trajectory are world to camera beside places of the camera; invert them": _turned_back(P),
    }
    as_others = {line: _fit(other, Q) for line, other in others.items()}
    line, best = min(as_others.items(), key=lambda item: item[1].error)
    was = f"orientations are {np.degrees(read.rotation):.1f} degrees off"
    if fits(best) and best.error < EXPLAINED * read.error:
        return f"{line}: as read, {was}, so {np.degrees(best.rotation):.1f}"
    if fits(read) and read.remaining < EXPLAINED * read.rotation:
        angle = np.linalg.norm(read.constant)
        x, y, z = read.constant / angle
        return (
            f"the trajectory's camera is turned by {np.degrees(angle):.0f} degrees about ({x:.2f}, {y:.2f}, {z:.2f}) "
            f"in all poses, another convention of its axes (x right, y down, z forward here) or another camera: {was}, "
            f"with that undone {np.degrees(read.remaining):.1f}; errors of rotation and those over a step count it, too"
        )
    return None


def delay(estimate: Trajectory, reference: Trajectory) -> str | None:
    """One line on by how much an estimate's times are late, or early, where that explains its error."""
    if estimate.clock != "seconds" or len(estimate) < FEWEST or len(reference) < FEWEST:
        return None
    few = estimate.selected(np.unique(np.linspace(0, len(estimate) - 1, MOST).astype(int)))
    now = _error_if_late(few, reference, 0.0)
    if now is None or now < OFF:
        return None
    found = [(now, 0.0)]
    for step in (STEP, STEP / 10):
        middle = min(found)[1]
        reach = LATEST if step == STEP else STEP
        tried = middle + np.arange(-round(reach / step), round(reach / step) + 1) * step
        errors = [(_error_if_late(few, reference, late), float(late)) for late in tried]
        found += [(error, late) for error, late in errors if error is not None]
    best, late = min(found)
    # the same poses as they are: the ends, which a delay leaves without a reference, may be what was wrong
    same = _error_if_late(few.selected(_met(few, reference, late)), reference, 0.0)
    now = now if same is None else min(now, same)
    if best > EXPLAINED * now:
        return None
    how, to_do = ("late", "subtract") if late > 0 else ("early", "add")
    return (
        f"the trajectory's times are {abs(late):.3f} s {how}: {to_do} that, and what remains after aligning by Sim(3) "
        f"falls from {100 * now:.2g} to {100 * best:.2g} % of the extent of the way"
    )


def _error_if_late(estimate: Trajectory, reference: Trajectory, late: float) -> float | None:
    """The relative error of centres where the estimate's times are so much late; None where too few times are met."""
    times, met = estimate.timestamps - late, _met(estimate, reference, late)
    if met.sum() < max(FEWEST, MET * len(times)):
        return None
    there = [np.interp(times[met], reference.timestamps, column) for column in reference.positions.T]
    return _relative_error(estimate.positions[met], np.stack(there, axis=1))[0]


def _met(estimate: Trajectory, reference: Trajectory, late: float) -> np.ndarray:
    """(N,) bool: the poses whose times, so much late, are among the reference's."""
    times = estimate.timestamps - late
    return (times >= reference.timestamps[0]) & (times <= reference.timestamps[-1])


def _relative_error(points: np.ndarray, reference: np.ndarray) -> tuple[float, Alignment]:
    """What remains of points (N, 3) after the best similarity, RMSE over the reference's spread; 1: nothing fits."""
    alignment = umeyama(points, reference, with_scale=True)
    spread = float(np.sqrt(reference.var(axis=0).sum()))
    remaining = float(np.sqrt(np.mean(np.sum((alignment(points) - reference) ** 2, axis=1))))
    return remaining / max(spread, 1e-9), alignment


def _fit(P: np.ndarray, Q: np.ndarray) -> Fit:
    """How poses (N, 4, 4) fit a reference's (N, 4, 4)."""
    position, alignment = _relative_error(P[:, :3, 3], Q[:, :3, 3])
    off = Rotation.from_matrix(poses.inverse(P)[:, :3, :3] @ alignment.rotation.T @ Q[:, :3, :3])
    constant = off.mean()
    return Fit(position, _rms(off), constant.as_rotvec(), _rms(constant.inv() * off))


def _rms(rotations: Rotation) -> float:
    return float(np.sqrt(np.mean(rotations.magnitude() ** 2)))


def _with_w_first(T: np.ndarray) -> np.ndarray:
    """Poses (N, 4, 4) whose quaternions, read as x y z w, were w x y z; those of one sign may be of the other."""
    read = Rotation.from_matrix(T[:, :3, :3]).as_quat()
    return _with_rotations(T, Rotation.from_quat(np.roll(read, -1, axis=1)).as_matrix())


def _turned_back(T: np.ndarray) -> np.ndarray:
    return _with_rotations(T, T[:, :3, :3].transpose(0, 2, 1))


def _with_rotations(T: np.ndarray, rotations: np.ndarray) -> np.ndarray:
    """Poses (N, 4, 4) at the same places with other rotations (N, 3, 3)."""
    turned = T.copy()
    turned[:, :3, :3] = rotations
    return turned
