"""Maps and trajectories in files of any system against reference files."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from semslam.doctor.depth.range import with_range
from semslam.engine.fusion import FusionConfig
from semslam.geometry.files import read_surface
from semslam.judging.figures import surface_figures, trajectory_figures
from semslam.judging.misread import delay, misread_convention
from semslam.judging.references import file_reference, scene_reference
from semslam.judging.run import Evaluation
from semslam.metrics.surface import sampled, surface_errors, surface_scores
from semslam.metrics.trajectory import TrajectoryErrors, losses, matched, trajectory_errors
from semslam.trajectory import Trajectory
from semslam.trajectory.files import is_pose_folder, read_trajectory
from sequences import Sequence as Recording
from sequences import open_sequence
from sequences.pose_pairing import NO_HINTS, PoseHints, on_one_clock
from sequences.rebased import far_origin

logger = logging.getLogger(__name__)
ALIKE = 0.5  # of the reference's spread: what may remain of it after the best alignment of a path that is its own


def evaluate_map(path: str | Path, reference: str | Path, sequence: Recording | None = None) -> Evaluation:
    """A map or mesh of any system against a reference mesh or cloud in the same world frame.

    sequence: whose poses decide what could be seen; without, all of both surfaces counts.
    """
    points, triangles = read_surface(path)
    origin = far_origin(points[:1]) if sequence is None else sequence.world_origin
    if origin.any():  # where single precision would lose what is measured here
        points = (points - origin).astype(np.float32)
    if len(triangles):
        points = sampled(points, triangles)
    if sequence is None:
        truth = file_reference(Path(reference), world_origin=origin)
    else:
        limits = with_range(FusionConfig(), sequence).range
        truth = scene_reference(sequence, str(reference), limits)
        if not len(truth.points):
            between = f"between {limits[0]:g} and {limits[1]:g} m"
            raise ValueError(f"{reference}: nothing of it is seen {between} from the poses of {sequence.name}")
    scores = surface_scores(points, truth)
    return Evaluation(surface_figures(scores), surface=scores, errors=surface_errors(points, truth))


def evaluate_trajectory(
    path: str | Path,
    reference: str | Path,
    with_scale: bool = False,
    hints: PoseHints = NO_HINTS,
) -> Evaluation:
    """A trajectory file of any system against a reference; with_scale aligns by a similarity (monocular systems).

    Either may be the folder of a recording with poses. hints: which of the reference's poses are meant by a file
    without times; see `sequences.pose_pairing`.
    """
    estimate, truth = on_one_clock(_trajectory(path), _trajectory(reference), hints)
    errors = trajectory_errors(estimate, truth)
    pairs = matched(estimate, truth)
    if explained := delay(estimate, truth) or misread_convention(*pairs):
        logger.warning("%s: %s", path, explained)
    else:
        _tell_another_path(errors, pairs[1])
    covered = _near_in_time(truth.timestamps, estimate.timestamps)  # lost frames have no line in a trajectory file
    there = (estimate.timestamps[0] <= truth.timestamps) & (truth.timestamps <= estimate.timestamps[-1])
    errors = replace(errors, losses=losses(truth.timestamps[there], covered[there]))  # a piece's ends are no losses
    return Evaluation(trajectory_figures(errors, len(truth), int((~covered).sum()), with_scale), errors)


def _trajectory(path: str | Path) -> Trajectory:
    """The poses of a trajectory file, of a folder of poses or of a recording."""
    if not Path(path).is_dir() or is_pose_folder(path):
        return read_trajectory(path)
    if (found := open_sequence(path).trajectory) is None:
        raise ValueError(f"{path}: is a recording without poses; give a trajectory, or a recording that has one")
    return found


def _tell_another_path(errors: TrajectoryErrors, truth: Trajectory) -> None:
    """Warn where a path hardly explains the reference (of the matched poses) better than a camera at rest would."""
    centres = truth.T_world_camera[:, :3, 3]
    spread = float(np.sqrt(centres.var(axis=0).sum()))
    best = errors.similar or errors.absolute
    if best.rmse > ALIKE * spread > 0:
        logger.warning(
            "the trajectories do not fit: aligned by %s they lie %.3g m apart (RMSE), where the reference lies "
            "%.3g m around its middle; are they of the same recording, and its times those of the same clock?",
            *(best.protocol, best.rmse, spread),
        )


def _near_in_time(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which times have another within half an interval of the slower clock: motion capture outruns every camera."""
    interval = max(float(np.median(np.diff(t))) if len(t) > 1 else 0.0 for t in (times, others))
    after = np.clip(np.searchsorted(others, times), 1, max(len(others) - 1, 1))
    nearest = np.minimum(np.abs(others[np.minimum(after, len(others) - 1)] - times), np.abs(others[after - 1] - times))
    return nearest <= 0.501 * interval + 1e-9
