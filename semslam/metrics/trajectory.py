"""How far a trajectory is from the truth, from itself, and how often the camera was lost.

Protocol of TUM RGB-D (Sturm et al., IROS 2012): poses belong together within 0.02 s; the absolute error (ATE) is
that of the camera centres after the best rigid motion SE(3), or similarity Sim(3) where asked; the relative error
(RPE) of poses i and j is that of E = (Q_i^-1 Q_j)^-1 (P_i^-1 P_j), Q the reference, without any alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from semslam import poses
from semslam.camera import Camera
from semslam.trajectory import Trajectory, associate

STILL = 1e-3  # metres; camera centres whose RMS distance to their mean is less say nothing of scale
LARGEST_SCALE = 50.0  # of a similarity, or one over it: what is beyond has collapsed, or counts another unit
OCCLUSION = 0.2  # metres: what differs by more is another surface
PAIRS = 20  # of frames, at most, whose depth is compared


@dataclass(frozen=True, eq=False)
class Alignment:
    """The motion that brings estimated points onto the reference: x -> scale * R x + t."""

    rotation: np.ndarray  # (3, 3)
    translation: np.ndarray  # (3,) metres
    scale: float = 1.0

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Aligned points (..., 3)."""
        return self.scale * points @ self.rotation.T + self.translation


@dataclass(frozen=True, eq=False)
class AbsoluteError:
    """ATE: distances of matched camera centres after the alignment, metres."""

    protocol: str  # "SE(3)" or "Sim(3)"
    rmse: float
    mean: float
    median: float
    maximum: float
    matched: int  # poses
    alignment: Alignment
    timestamps: np.ndarray  # (matched,) seconds, the estimate's
    errors: np.ndarray  # (matched,) metres


@dataclass(frozen=True)
class RelativeError:
    """RPE over pairs of poses a fixed step apart."""

    step: str  # "1 frame" or "1 s"
    pairs: int
    rmse_m: float
    median_m: float
    rmse_rad: float


@dataclass(frozen=True)
class Losses:
    """When tracking was lost and found again. Seconds since the first frame."""

    frames: int
    tracked: int
    lost_at: tuple[float, ...]  # first lost frame of each spell
    recovered_after: tuple[float, ...]  # length of each spell that ended; one fewer than lost_at if it ends lost

    @property
    def coverage(self) -> float:
        """Tracked frames of all, 0 to 1."""
        return self.tracked / self.frames if self.frames else 0.0


@dataclass(frozen=True, eq=False)
class TrajectoryErrors:
    """Everything that is said about one trajectory against its reference."""

    absolute: AbsoluteError  # after SE(3)
    similar: AbsoluteError | None  # after Sim(3); None where it is degenerate
    degenerate: str  # why it is
    per_frame: RelativeError
    per_second: RelativeError | None  # None where the sequence is shorter than a second, or has no times
    drift_per_metre: float | None  # None where the reference does not move
    losses: Losses


def umeyama(points: np.ndarray, reference: np.ndarray, with_scale: bool = False) -> Alignment:
    """The least-squares alignment of points (N, 3) to a reference (N, 3) (Umeyama, PAMI 1991, eq. 40-42).

    On a straight line the rotation about the line is free; any of the best ones is returned.
    """
    mean, reference_mean = points.mean(axis=0), reference.mean(axis=0)
    centred = points - mean
    u, d, vt = np.linalg.svd((reference - reference_mean).T @ centred / len(points))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt)) or 1.0])
    rotation = u @ np.diag(signs) @ vt
    variance = float((centred**2).sum() / len(points))
    scale = float(d @ signs / variance) if with_scale and variance > 0 else 1.0
    return Alignment(rotation, reference_mean - scale * rotation @ mean, scale)


def matched(estimate: Trajectory, reference: Trajectory, max_difference: float = 0.02) -> tuple[Trajectory, Trajectory]:
    """The poses of both that belong together in time; raises ValueError where there are none."""
    ie, ir = associate(estimate.timestamps, reference.timestamps, max_difference)
    if len(ie) == 0:
        spans = [
            f"{t.timestamps[0]:.3f} to {t.timestamps[-1]:.3f} s" if len(t) else "empty" for t in (estimate, reference)
        ]
        raise ValueError(
            f"no pose of the estimate ({spans[0]}) is within {max_difference} s of one of the reference ({spans[1]}); "
            f"do both count time from the same start, in seconds?"
        )
    return estimate.selected(ie), reference.selected(ir)


def absolute_error(
    estimate: Trajectory, reference: Trajectory, with_scale: bool = False, max_difference: float = 0.02
) -> AbsoluteError:
    """ATE of the camera centres after the best rigid motion, or similarity `with_scale`.

    A similarity can shrink a reference's whole way into nothing, or blow up an estimate that has collapsed: where it
    would be degenerate, ValueError says why.
    """
    estimate, reference = matched(estimate, reference, max_difference)
    if with_scale:
        if len(estimate) < 3:
            raise ValueError(f"a similarity is determined by three poses or more, {len(estimate)} are matched")
        for name, centres in (("estimate", estimate.positions), ("reference", reference.positions)):
            spread = float(np.sqrt(np.mean(np.sum((centres - centres.mean(axis=0)) ** 2, axis=1))))
            if spread < STILL:
                raise ValueError(
                    f"the camera of the {name} stands still (its places spread by {1000 * spread:.2g} mm), which "
                    f"says nothing of scale"
                )
    alignment = umeyama(estimate.positions, reference.positions, with_scale)
    if not 1 / LARGEST_SCALE < alignment.scale < LARGEST_SCALE:
        raise ValueError(
            f"the best similarity has the scale {alignment.scale:.3g}: the estimate has collapsed, has nothing to do "
            f"with the reference, or counts another unit than metres"
        )
    errors = np.linalg.norm(alignment(estimate.positions) - reference.positions, axis=1)
    return AbsoluteError(
        protocol="Sim(3)" if with_scale else "SE(3)",
        rmse=float(np.sqrt(np.mean(errors**2))),
        mean=float(errors.mean()),
        median=float(np.median(errors)),
        maximum=float(errors.max()),
        matched=len(errors),
        alignment=alignment,
        timestamps=estimate.timestamps,
        errors=errors,
    )


def relative_error(
    estimate: Trajectory,
    reference: Trajectory,
    frames: int | None = 1,
    seconds: float | None = None,
    max_difference: float = 0.02,
) -> RelativeError | None:
    """RPE over all pairs that lie so many frames, or (where given) seconds, apart; None where no pair does.

    Frames are counted among those that have a pose: across frames that were lost, a step is longer.
    """
    estimate, reference = matched(estimate, reference, max_difference)
    if seconds is not None:
        i, j = associate(estimate.timestamps + seconds, estimate.timestamps, max_difference)
        step = f"{seconds:g} s"
    else:
        frames = frames or 1
        i = np.arange(max(len(estimate) - frames, 0))
        j, step = i + frames, f"{frames} frame" + "s" * (frames > 1)
    if len(i) == 0:
        return None
    E = pair_errors(estimate, reference, i, j)
    metres, radians = np.linalg.norm(E[:, :3, 3], axis=1), Rotation.from_matrix(E[:, :3, :3]).magnitude()
    return RelativeError(
        step=step,
        pairs=len(i),
        rmse_m=float(np.sqrt(np.mean(metres**2))),
        median_m=float(np.median(metres)),
        rmse_rad=float(np.sqrt(np.mean(radians**2))),
    )


def pair_errors(estimate: Trajectory, reference: Trajectory, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(Q_i^-1 Q_j)^-1 (P_i^-1 P_j) for index arrays i and j: (M, 4, 4)."""
    P, Q = estimate.T_world_camera, reference.T_world_camera
    return poses.inverse(poses.inverse(Q[i]) @ Q[j]) @ (poses.inverse(P[i]) @ P[j])


def drift_per_metre(estimate: Trajectory, reference: Trajectory, max_difference: float = 0.02) -> float | None:
    """Mean translation error per metre travelled: RPE over stretches of one metre of the reference, by their length.

    A reference shorter than a metre is one stretch; None where it does not move at all (under a millimetre).
    """
    estimate, reference = matched(estimate, reference, max_difference)
    way = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(reference.positions, axis=0), axis=1))])
    if way[-1] < 1e-3:
        return None
    i = np.flatnonzero(way + 1.0 <= way[-1])
    j = np.searchsorted(way, way[i] + 1.0)
    if len(i) == 0:
        i, j = np.array([0]), np.array([len(way) - 1])
    E = pair_errors(estimate, reference, i, j)
    return float(np.mean(np.linalg.norm(E[:, :3, 3], axis=1) / (way[j] - way[i])))


def losses(timestamps: np.ndarray, tracked: np.ndarray) -> Losses:
    """The spells of lost tracking in a run: timestamps (N,) seconds of all frames, tracked (N,) bool."""
    tracked = np.asarray(tracked, bool)
    lost_at, recovered_after = [], []
    since: float | None = None
    for t, ok in zip(np.asarray(timestamps, np.float64) - (timestamps[0] if len(timestamps) else 0), tracked):
        if not ok and since is None:
            since = float(t)
            lost_at.append(since)
        elif ok and since is not None:
            recovered_after.append(float(t) - since)
            since = None
    return Losses(len(tracked), int(tracked.sum()), tuple(lost_at), tuple(recovered_after))


def trajectory_errors(
    estimate: Trajectory,
    reference: Trajectory,
    tracked: np.ndarray | None = None,
    max_difference: float = 0.02,
) -> TrajectoryErrors:
    """All errors of a trajectory. `tracked` (N,) bool tells which of its poses were tracked; None means all.

    Lost frames count in `losses` only: their poses are guesses.
    """
    tracked = np.ones(len(estimate), bool) if tracked is None else np.asarray(tracked, bool)
    found = estimate.selected(tracked)
    per_frame = relative_error(found, reference, max_difference=max_difference)
    if per_frame is None:
        raise ValueError("only one pose of the estimate has a reference; at least two are needed")
    similar, degenerate = None, ""
    try:
        similar = absolute_error(found, reference, True, max_difference)
    except ValueError as error:
        degenerate = str(error)
    return TrajectoryErrors(
        absolute=absolute_error(found, reference, False, max_difference),
        similar=similar,
        degenerate=degenerate,
        per_frame=per_frame,
        per_second=relative_error(found, reference, seconds=1.0, max_difference=max_difference)
        if found.clock == "seconds"
        else None,
        drift_per_metre=drift_per_metre(found, reference, max_difference),
        losses=losses(estimate.timestamps, tracked),
    )


def warped_depth_error(depth_i: np.ndarray, depth_j: np.ndarray, camera: Camera, T_j_i: np.ndarray) -> float:
    """Median |difference| in metres of frame i's depth, moved into frame j, and frame j's own depth there.

    Pixels that differ by more than `OCCLUSION` see other surfaces and are left out. NaN where less than
    100 pixels meet. A measure of poses that needs no truth.
    """
    valid = depth_i > 0
    points = poses.transform(T_j_i, camera.backproject(depth_i.astype(np.float64))[valid])
    points = points[points[:, 2] > 0.1]
    pixels = np.rint(camera.project(points)).astype(np.int64)
    inside = np.all((pixels >= 0) & (pixels < (camera.width, camera.height)), axis=1)
    there = depth_j[pixels[inside, 1], pixels[inside, 0]]
    difference = np.abs(points[inside, 2] - there)[there > 0]
    difference = difference[difference < OCCLUSION]
    return float(np.median(difference)) if len(difference) >= 100 else float("nan")


def self_consistency(depths: Sequence[np.ndarray], camera: Camera, T_world_camera: np.ndarray, gap: int) -> float:
    """Median over up to `PAIRS` evenly spread pairs of frames `gap` apart of `warped_depth_error`, metres."""
    starts = np.unique(np.linspace(0, max(len(depths) - gap - 1, 0), PAIRS).astype(int))
    errors = [
        warped_depth_error(
            depths[i], depths[i + gap], camera, poses.inverse(T_world_camera[i + gap]) @ T_world_camera[i]
        )
        for i in starts
        if i + gap < len(depths)
    ]
    return float(np.nanmedian(errors)) if np.any(np.isfinite(errors)) else float("nan")
