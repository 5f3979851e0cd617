"""What `semslam evaluate` does: a run, or another system's files, against the truth, as one flat dict of figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import SurfelCloud, most_probable
from semslam.frame import evenly_spread
from semslam.geometry.files import read_surface
from semslam.judging.figures import label_figures, surface_figures, trajectory_figures
from semslam.judging.map_labels import MapLabelScores, pooled_and_mean, rendered_probabilities, surfel_truth
from semslam.labels import LABEL_SETS, remap_labels, remap_probabilities
from semslam.metrics import surface
from semslam.metrics.surface import Reference, SurfaceScores
from semslam.metrics.trajectory import TrajectoryErrors, matched, trajectory_errors
from semslam.perception import Network
from semslam.rendering.splatting import render
from semslam.runs import networks
from semslam.runs.config import RunConfig
from semslam.runs.folder import RunFolder
from semslam.runs.progress import Progress
from semslam.trajectory import Trajectory, read_trajectory

NEAR, FAR = 0.3, 5.0  # metres; what a sensor of rooms measures, and what the map keeps
TSDF_FRAMES, VIEWS, VOTES = 100, 40, 60  # frames that are enough for a reference mesh, its views, surfels' true labels
VIEW_WIDTH = 320  # pixels


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A run against the truth."""

    figures: dict[str, Any]  # flat; names are stable
    trajectory: TrajectoryErrors | None = None
    paths: tuple[Trajectory, Trajectory, np.ndarray] | None = None  # estimate, reference, which poses were tracked
    surface: SurfaceScores | None = None
    errors: np.ndarray | None = None  # (N,) float32 metres of each surfel to the reference, NaN = not judged
    labels: dict[int, MapLabelScores] = field(default_factory=dict)  # by the number of classes, 13 or 40


# ------------------------------------------------------------------------------------------------- whole runs


def evaluate_run(
    path: str | Path,
    truth: str = "auto",
    sequence: Any = None,
    network: Network | None = None,
    reference: Reference | None = None,
    with_scale: bool = False,
) -> Evaluation:
    """Everything that can be said of a run. What there is no truth for is None.

    truth: of the surface; a mesh or cloud file, "mesh" of a synthetic sequence, "depth" back-projected with the data
    set's poses where it is noise-free, "tsdf", the mesh that Open3D makes of it, or "auto": mesh where there is one,
    else tsdf. sequence: opened by who has done so already, as is the network, needed for labels that were predicted,
    and the reference made by `scene_reference`. with_scale: align the trajectory by Sim(3) instead of SE(3).
    """
    folder = RunFolder.open(path)
    config = folder.load_config()
    sequence = config.open_sequence() if sequence is None else sequence
    progress = folder.load_progress()
    cloud, _ = folder.load_cloud()
    figures: dict[str, Any] = {"poses": config.poses, "depth": config.slam.perception.depth}
    paths = _paths(progress, sequence)
    errors = _trajectory_errors(paths, with_scale)
    offered = progress.next_index - len(progress.held_out)
    figures |= trajectory_figures(errors, offered, len(progress.lost) + len(progress.corrupt))
    if errors is not None and config.poses == "dataset":
        figures["trajectory_protocol"] += "; the poses were given, so that the error is 0 by construction"
    scores = per_surfel = None
    posed_depth = sequence.has_poses and sequence.has_depth
    if reference is None and (posed_depth or truth not in ("auto", "depth", "tsdf")):
        reference = scene_reference(sequence, truth)
    if reference is not None:
        positions = _in_reference_frame(cloud.positions, progress, sequence, config.poses)
        scores = surface.surface_scores(positions, reference)
        per_surfel = surface.surface_errors(positions, reference)
        figures |= surface_figures(scores)
    figures["layered"] = surface.layering(cloud)
    labels = _labels(cloud, progress, sequence, config, network)
    figures |= label_figures(labels)
    return Evaluation(figures, errors, paths, scores, per_surfel, labels)


def over_scenes(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Several scenes as one: means of their figures, and label figures of all their pixels pooled as well.

    `miou_13_map` is the mean of the scenes, `miou_13_map_pooled` that of one confusion matrix over all of them.
    """
    flat = [evaluation.figures for evaluation in evaluations.values()]
    figures: dict[str, Any] = {"scenes": len(flat)}
    for name in dict.fromkeys(name for f in flat for name in f):
        values = [f[name] for f in flat if isinstance(f.get(name), (int, float))]
        if values:
            figures[name] = float(np.mean(values))
        if 0 < len(values) < len(flat):
            figures[f"{name}_scenes"] = len(values)
    for count in (13, 40):
        scores = {name: e.labels[count] for name, e in evaluations.items() if count in e.labels}
        for kind in ("single", "map", "surfels"):
            matrices = {name: getattr(s, kind) for name, s in scores.items() if getattr(s, kind).counts.sum()}
            if matrices:
                figures[f"miou_{count}_{kind}_pooled"], figures[f"miou_{count}_{kind}"] = pooled_and_mean(matrices)
    return figures


def scene_reference(sequence: Any, truth: str = "auto") -> Reference:
    """The surface that a sequence's maps are held against; see `evaluate_run`."""
    posed = [i for i in range(len(sequence)) if sequence.poses is not None and sequence.poses[i] is not None]
    views = [sequence.poses[i] for i in evenly_spread(posed, VIEWS)]
    camera: Camera = sequence.camera
    small = camera.resized(VIEW_WIDTH, round(camera.height * VIEW_WIDTH / camera.width))
    small = camera if camera.width < VIEW_WIDTH else small
    if truth in ("auto", "mesh") and (mesh := sequence.mesh()) is not None:
        return surface.mesh_reference(mesh.vertices, mesh.triangles, "the scene's own mesh", small, views, NEAR, FAR)
    if truth == "mesh":
        raise ValueError(f"{sequence.name} has no mesh of its own; name a file, or depth or tsdf")
    if truth not in ("auto", "depth", "tsdf"):
        return file_reference(Path(truth), small if views else None, views)
    if not posed or not sequence.has_depth:
        raise ValueError(f"{sequence.name} has no depth with poses to make a reference of; name a mesh or a cloud")
    if truth == "depth":
        frames = (frame for i in evenly_spread(posed, VIEWS) if (frame := sequence.readable(i)) is not None)
        seen = (
            (f.camera, f.depth, f.T_world_camera)
            for f in frames
            if f.depth is not None and f.T_world_camera is not None
        )
        return surface.depth_reference(seen, "the sequence's depth back-projected with its poses", NEAR, FAR)
    return _tsdf_reference(sequence, posed, small, views)


def _tsdf_reference(sequence: Any, posed: list[int], camera: Camera, views: list[np.ndarray]) -> Reference:
    from semslam.geometry.tsdf_mesh import Reconstruction, ReconstructionConfig

    reconstruction = Reconstruction(ReconstructionConfig(max_depth=FAR))
    for i in evenly_spread(posed, TSDF_FRAMES):
        frame = sequence.readable(i)
        if frame is None or frame.depth is None or frame.T_world_camera is None:
            continue
        depth = np.where(frame.depth > NEAR, frame.depth, np.float32(0))
        reconstruction.integrate(depth, frame.color, frame.camera, frame.T_world_camera)
    mesh = reconstruction.mesh()
    name = "the sensor's depth fused with the data set's poses (Open3D, 1 cm voxels)"
    return surface.mesh_reference(mesh.vertices, mesh.triangles, name, camera, views, NEAR, FAR)


def _paths(progress: Progress, sequence: Any) -> tuple[Trajectory, Trajectory, np.ndarray] | None:
    """The run's trajectory, the data set's, and which poses of the run were tracked."""
    if sequence.trajectory is None or len(progress.poses) == 0:
        return None
    return progress.trajectory(), sequence.trajectory, progress.tracked


def _trajectory_errors(
    paths: tuple[Trajectory, Trajectory, np.ndarray] | None, with_scale: bool
) -> TrajectoryErrors | None:
    if paths is None:
        return None
    try:
        return trajectory_errors(*paths, with_scale=with_scale)
    except ValueError:  # too few poses to say anything
        return None


def _in_reference_frame(positions: np.ndarray, progress: Progress, sequence: Any, source: str) -> np.ndarray:
    """Surfels in the world of the data set's poses; tracked poses have a world of their own."""
    if source == "dataset" or sequence.trajectory is None:
        return positions
    T = world_alignment(progress.trajectory().selected(progress.tracked), sequence.trajectory)
    return poses.transform(T, positions).astype(np.float32)


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


def _labels(
    cloud: SurfelCloud, progress: Progress, sequence: Any, config: RunConfig, network: Network | None
) -> dict[int, MapLabelScores]:
    """Scores a label set: the map's own and, of NYU-40, the 13 classes that it merges into."""
    settings = config.slam.perception
    if settings.labels == "none" or not sequence.has_labels or len(cloud) == 0:
        return {}
    sets = [settings.classes] + (["nyu13"] if settings.classes == "nyu40" else [])
    if sequence.label_set != "nyu40" and sequence.label_set not in sets:
        return {}  # no table leads from these labels to the map's
    if settings.labels == "predicted" and network is None:
        network = networks.predictor(settings.classes, config.weights, config.engine)
    scores = {len(LABEL_SETS[name]): MapLabelScores(len(LABEL_SETS[name])) for name in sets}
    pose_of = progress.posed()
    labelled = [i for i in sequence.labelled_indices if i in pose_of]
    posed = []
    for i in evenly_spread(labelled, VOTES):
        frame = sequence.readable(i)
        if frame is not None and frame.labels is not None:
            camera, truth = _of_map_size(frame, settings.width)
            posed.append((camera, pose_of[i], truth))
    for i in labelled:
        if i % settings.labels_every:
            continue
        frame = sequence.readable(i)
        if frame is None or frame.labels is None:
            continue
        camera, truth = _of_map_size(frame, settings.width)
        on_map = rendered_probabilities(cloud, render(cloud, camera, pose_of[i], cull_back=False))
        alone = None
        if settings.labels == "predicted" and network is not None:
            alone = network.class_probabilities(frame.color, (camera.width, camera.height))
        for name in sets:
            scores[len(LABEL_SETS[name])].add(
                remap_labels(truth, sequence.label_set, name),
                _as(on_map, settings.classes, name),
                None if alone is None else _as(alone, settings.classes, name),
            )
    remapped = [(c, T, [remap_labels(truth, sequence.label_set, name) for name in sets]) for c, T, truth in posed]
    truths = surfel_truth(cloud, remapped, [len(LABEL_SETS[name]) for name in sets])
    for name, truth in zip(sets, truths, strict=True):
        count = len(LABEL_SETS[name])
        assert cloud.class_probabilities is not None
        called = cloud.labels()
        if name != settings.classes:
            merged = remap_probabilities(cloud.class_probabilities, settings.classes, name)
            called = most_probable(merged)
        scores[count].surfels.add(called[None], truth[None])
    return scores


def _as(probabilities: np.ndarray, classes: str, name: str) -> np.ndarray:
    return probabilities if classes == name else remap_probabilities(probabilities, classes, name)


def _of_map_size(frame: Any, width: int | None) -> tuple[Camera, np.ndarray]:
    """The frame's camera and labels at the size that the map was made at."""
    camera: Camera = frame.camera
    if width is None or width == camera.width:
        return camera, frame.labels
    camera = camera.resized(width, round(camera.height * width / camera.width))
    return camera, cv2.resize(frame.labels, (camera.width, camera.height), interpolation=cv2.INTER_NEAREST)


# ---------------------------------------------------------------------------------- files of other systems


def file_reference(
    path: Path, camera: Camera | None = None, T_world_camera: list[np.ndarray] | None = None
) -> Reference:
    """A reference from a mesh or cloud file; for a mesh, the views decide what counts."""
    points, triangles = read_surface(path)
    if len(triangles):
        return surface.mesh_reference(points, triangles, str(path), camera, T_world_camera or (), NEAR, FAR)
    return surface.points_reference(points, str(path))


def evaluate_map(path: str | Path, reference: str | Path, sequence: Any = None) -> Evaluation:
    """A map or mesh of any system against a reference mesh or cloud in the same world frame.

    sequence: whose poses decide what could be seen; without, all of both surfaces counts.
    """
    points, triangles = read_surface(path)
    if len(triangles):
        points = surface.sampled(points, triangles)
    truth = file_reference(Path(reference)) if sequence is None else scene_reference(sequence, str(reference))
    scores = surface.surface_scores(points, truth)
    return Evaluation(surface_figures(scores), surface=scores, errors=surface.surface_errors(points, truth))


def evaluate_trajectory(path: str | Path, reference: str | Path, with_scale: bool = False) -> Evaluation:
    """A trajectory file of any system against a reference; with_scale aligns by a similarity (monocular systems)."""
    estimate, truth = read_trajectory(path), read_trajectory(reference)
    errors = trajectory_errors(estimate, truth, with_scale=with_scale)
    covered = int(_near_in_time(truth.timestamps, estimate.timestamps).sum())
    return Evaluation(trajectory_figures(errors, len(truth), len(truth) - covered), errors)


def _near_in_time(times: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which times have another within half an interval of the slower clock: motion capture outruns every camera."""
    interval = max(float(np.median(np.diff(t))) if len(t) > 1 else 0.0 for t in (times, others))
    after = np.clip(np.searchsorted(others, times), 1, max(len(others) - 1, 1))
    nearest = np.minimum(np.abs(others[np.minimum(after, len(others) - 1)] - times), np.abs(others[after - 1] - times))
    return nearest <= 0.501 * interval + 1e-9
