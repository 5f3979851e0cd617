"""A run against the truth, as one flat dict of figures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam import poses
from semslam.cloud import CloudInParts
from semslam.doctor.depth.range import with_range, without_cut_off
from semslam.doctor.poses.convention import as_meant
from semslam.doctor.poses.repeated import interpolate_repeated_poses, repeats_of
from semslam.judging.figures import filling_figures, label_figures, surface_figures, trajectory_figures
from semslam.judging.map_labels import MapLabelScores, pooled_and_mean
from semslam.judging.references import scene_reference
from semslam.judging.run_labels import label_scores
from semslam.metrics import surface
from semslam.metrics.layering import layering
from semslam.metrics.surface import Reference, SurfaceScores
from semslam.metrics.trajectory import Losses, TrajectoryErrors, losses, matched, trajectory_errors
from semslam.metrics.voxels import Blocks
from semslam.perception import Network
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.trajectory import Trajectory
from sequences import Sequence as Recording
from sequences.selected import WithoutDepth, WithoutHidden

logger = logging.getLogger(__name__)
EVALUATED = "evaluated"  # the key, in a run's metrics.json, of the names of the figures that an evaluation wrote there
OF_TRACKING = ("ate_", "rpe_", "trajectory_scale", "scale_error", "drift_")  # how the figures of trajectories begin


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run against the truth."""

    figures: dict[str, Any]  # flat; names are stable
    trajectory: TrajectoryErrors | None = None
    paths: tuple[Trajectory, Trajectory, np.ndarray] | None = None  # estimate, reference, which poses were tracked
    surface: SurfaceScores | None = None
    errors: np.ndarray | None = None  # (N,) float32 metres of each surfel to the reference, NaN = not judged
    labels: dict[int, MapLabelScores] = field(default_factory=dict)  # by the number of classes
    surfels: int | None = None  # of the map


def evaluate_run(
    path: str | Path,
    truth: str = "auto",
    *,
    moved_to: str | None = None,
    sequence: Recording | None = None,
    network: Network | None = None,
    reference: Reference | None = None,
    label_frames: Iterable[int] | None = None,
    with_scale: bool = False,
) -> Evaluation:
    """Everything that can be said of a run. What there is no truth for is None.

    truth: of the surface, see `scene_reference`. moved_to: where the run's recording is now. sequence (as
    `judged_recording` makes it), network, reference: those that the run's settings and `truth` name, where the caller
    has them already. label_frames: see `label_scores`. with_scale: align the trajectory by Sim(3) instead of SE(3).
    """
    folder = RunFolder.open(path)
    config = folder.load_config()
    progress = folder.load_progress()
    if sequence is None:
        sequence = judged_recording(folder.open_sequence(moved_to), config, progress)
    clouds, _ = folder.load_clouds()
    figures: dict[str, Any] = {"poses": config.poses, "depth": config.slam.perception.depth}
    paths = _paths(progress, sequence)
    errors = None if paths is None else _trajectory_errors(paths, losses_of(progress, sequence))
    figures |= _figures_of_trajectory(folder, progress, sequence, errors, with_scale)
    if reference is None:
        reference = surface_reference(sequence, truth, lambda: depth_limits(config, sequence), origin_of(clouds))
    compared = _compared_surface(folder, progress, sequence, clouds, reference)
    figures |= compared.figures | {"layered": layering(clouds)}
    labels = label_scores(clouds, progress, sequence, config, network, label_frames)
    figures |= label_figures(labels)
    return Evaluation(figures, errors, paths, compared.scores, compared.errors, labels, len(clouds))


def judged_recording(sequence: Recording, config: RunConfig, progress: Progress) -> Recording:
    """What a run of a recording is held against: its poses as the run understands them, without depth that stands for
    all that lies farther, that a hanging depth camera repeated, or that is of what moves with the camera."""
    if config.pose_convention is None or not config.poses_of_recording:  # no run has judged these poses
        sequence = as_meant(sequence, config.sequence)
    if config.reject_poses and sequence.has_poses:  # as a run of these poses reads them
        sequence = interpolate_repeated_poses(sequence, repeats_of(sequence))
    sequence, _ = without_cut_off(sequence)
    if progress.depth_repeated:
        sequence = WithoutDepth(sequence, progress.depth_repeated)
    return WithoutHidden(sequence, progress.hidden) if progress.hidden else sequence


def _figures_of_trajectory(
    folder: RunFolder, progress: Progress, sequence: Recording, errors: TrajectoryErrors | None, with_scale: bool
) -> dict[str, Any]:
    """How far the run's poses are off, of how many frames, and by which protocol."""
    offered = progress.next_index - len(progress.held_out)
    apart = sum(len(progress.frames_of(submap)) for submap in progress.parts[1:])
    not_in_map = len(progress.lost) + len(progress.corrupt) + len(progress.color_repeated) + apart
    figures = trajectory_figures(errors, offered, not_in_map, with_scale)
    if errors is None:
        few = "fewer than two of its poses have a reference" if sequence.trajectory is not None else "no reference"
        figures["trajectory_protocol"] = few
    elif folder.load_config().poses == "dataset":
        corrected = folder.load_metrics().get("poses_corrected")
        then = "and corrected by the images" if corrected else "so that the error is 0 by construction"
        figures["trajectory_protocol"] += f"; the poses were given, {then}"
    return figures


class _ComparedSurface(NamedTuple):
    figures: dict[str, Any]
    scores: SurfaceScores | None = None
    errors: np.ndarray | None = None  # (N,) float32 metres of each surfel to the reference, NaN = not judged


def _compared_surface(
    folder: RunFolder, progress: Progress, sequence: Recording, clouds: CloudInParts, reference: Reference | None
) -> _ComparedSurface:
    """The surfels against a reference, of filled holes also apart; without scores where there is no reference, or none
    in the map's world."""
    if reference is None:
        return _ComparedSurface({"surface_protocol": "no reference"})
    try:
        in_reference = _to_reference_frame(progress, sequence, folder.load_config().poses)
    except ValueError as error:
        logger.warning("%s: the map is not compared with %s: %s", folder.path, reference.name, error)
        return _ComparedSurface({"surface_protocol": f"no reference in the map's world: {error}"})

    def points(*ends: int) -> Blocks:
        return lambda: map(in_reference, clouds.positions(slice(*ends)))

    scores = surface.surface_scores(points(0, len(clouds)), reference)
    errors = surface.surface_errors(points(0, len(clouds)), reference)
    figures = surface_figures(scores)
    if filled := len(folder.load_filled() or ()):  # the last ones
        parts = points(0, len(clouds) - filled), points(len(clouds) - filled, len(clouds))
        figures |= filling_figures(*(surface.surface_scores(part, reference) for part in parts))
    return _ComparedSurface(figures, scores, errors)


def depth_limits(config: RunConfig, sequence: Recording) -> tuple[float, float]:
    """Metres; the nearest and the farthest depth of the recording's depth camera that counts, whatever depth a run
    uses: as set, or as a run with that depth would choose it."""
    return with_range(config.slam.fusion, sequence).range


def origin_of(clouds: CloudInParts) -> np.ndarray:
    """(3,) metres, to which a map is relative."""
    return next(iter(clouds.geometry)).world_origin


def surface_reference(
    sequence: Recording,
    truth: str,
    limits: Callable[[], tuple[float, float]],
    world_origin: np.ndarray | None = None,
) -> Reference | None:
    """The surface to compare with, as `scene_reference` makes it; limits: gives those, should they be needed.

    None where none was asked for by name and none can be made: without poses and depth, or with a warning.
    """
    if not (sequence.has_poses and sequence.has_depth) and truth in ("auto", "depth", "tsdf"):
        return None
    try:
        return scene_reference(sequence, truth, limits(), world_origin)
    except ValueError as error:
        if truth != "auto":
            raise
        logger.warning("%s: no surface to compare the map with: %s", sequence.name, error)
        return None


def keep(evaluation: Evaluation, folder: RunFolder) -> dict[str, Any]:
    """Write figures and the surfels' errors into the run's folder, in place of those of an earlier evaluation; returns
    all figures of the run."""
    metrics = folder.load_metrics()
    folder.forget_evaluation()
    for name in metrics.pop(EVALUATED, ()):
        metrics.pop(name, None)
    metrics |= evaluation.figures
    folder.save_metrics(metrics | {EVALUATED: list(evaluation.figures)})
    if evaluation.errors is not None:
        folder.save_errors(evaluation.errors)  # for `semslam view --color-by error`
    return metrics


def over_scenes(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Several scenes as one: means of their figures, and label figures of all their pixels pooled as well.

    `miou_13_map` is the mean of the scenes, `miou_13_map_pooled` that of one confusion matrix over all of them. Errors
    of trajectories are the means of the runs that tracked, where any did: those of given poses are 0 by construction.
    `NAME_scenes` counts the scenes of a mean that is not of all.
    """
    flat = [evaluation.figures for evaluation in evaluations.values()]
    if any(figures["poses"] != "dataset" for figures in flat):
        flat = [
            f if f["poses"] != "dataset" else {k: v for k, v in f.items() if not k.startswith(OF_TRACKING)}
            for f in flat
        ]
    figures: dict[str, Any] = {"scenes": len(flat)}
    for name in dict.fromkeys(name for f in flat for name in f):
        values = [f[name] for f in flat if isinstance(f.get(name), (int, float)) and np.isfinite(f[name])]
        if values:
            figures[name] = float(np.mean(values))
        if 0 < len(values) < len(flat):
            figures[f"{name}_scenes"] = len(values)
    for count in sorted({count for e in evaluations.values() for count in e.labels}):
        scores = {name: e.labels[count] for name, e in evaluations.items() if count in e.labels}
        for kind in ("single", "map", "surfels"):
            matrices = {name: getattr(s, kind) for name, s in scores.items() if getattr(s, kind).counts.sum()}
            if matrices:
                figures[f"miou_{count}_{kind}_pooled"], figures[f"miou_{count}_{kind}"] = pooled_and_mean(matrices)
    return figures


def _paths(progress: Progress, sequence: Recording) -> tuple[Trajectory, Trajectory, np.ndarray] | None:
    """The run's trajectory, the data set's, and which poses of the run were tracked."""
    if sequence.trajectory is None or len(progress.poses) == 0:
        return None
    return progress.trajectory(), sequence.trajectory, progress.tracked


def losses_of(progress: Progress, sequence: Recording) -> Losses:
    """The spells of lost tracking in a run, of the frames before its first pose too, which its trajectory lacks."""
    early = sorted({*progress.lost} - {*progress.indices})
    times = np.r_[sequence.timestamps[early], progress.trajectory().timestamps]
    tracked = np.r_[np.zeros(len(early), bool), progress.tracked]
    order = np.argsort(times, kind="stable")
    return losses(times[order], tracked[order])


def _trajectory_errors(paths: tuple[Trajectory, Trajectory, np.ndarray], lost: Losses) -> TrajectoryErrors | None:
    try:
        return replace(trajectory_errors(*paths), losses=lost)
    except ValueError:  # too few poses to say anything
        return None


def _to_reference_frame(progress: Progress, sequence: Recording, source: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function from surfels (N, 3) to the world of the data set's poses; tracked poses have a world of their own."""
    if source == "dataset" or sequence.trajectory is None:
        return lambda positions: positions
    T = world_alignment(progress.trajectory().selected(progress.tracked), sequence.trajectory)
    return lambda positions: poses.transform(T, positions).astype(np.float32)


def world_alignment(estimate: Trajectory, reference: Trajectory) -> np.ndarray:
    """T_reference_estimate (4, 4): the rigid motion between two worlds from the poses that belong together.

    The rotation is the mean over the frames of R_reference R_estimate^T, which, unlike one from the camera centres
    alone, is determined on a straight path; the translation then fits the centres.
    """
    est, ref = matched(estimate, reference)
    R_est, R_ref = est.T_world_camera[:, :3, :3], ref.T_world_camera[:, :3, :3]
    T = np.eye(4)
    T[:3, :3] = (R_ref @ np.swapaxes(R_est, 1, 2)).mean(axis=0)
    T = poses.orthonormalized(T)
    T[:3, 3] = (ref.positions - est.positions @ T[:3, :3].T).mean(axis=0)
    return T
