"""From settings to a run that is ready to iterate, and from its end to the files that people look at."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam.camera import SENSORS
from semslam.cloud import CloudInParts, SurfelCloud
from semslam.depth.corrections import fusion_config
from semslam.depth.multiview import MultiViewDepth
from semslam.doctor.depth_range import LITTLE, with_range
from semslam.doctor.doctor import doubtful_intrinsics, timestamps
from semslam.doctor.scene import classes_of_another_scene
from semslam.frame import Frame, Observation
from semslam.geometry import export
from semslam.geometry.tsdf_mesh import LABELLING_BYTES, ReconstructionConfig, mesh_of_map, reconstructed
from semslam.labels import LABEL_SETS
from semslam.loops.loop_closure import LoopCloser
from semslam.perception import Network, Perceive, Perception
from semslam.poses import moved_by
from semslam.rendering import pictures
from semslam.rendering.splatting import render
from semslam.runs import networks
from semslam.runs.color_only.depth import correction_of
from semslam.runs.color_only.fitted import FITTED, FittedPoses, fitted_poses
from semslam.runs.color_only.kept import load_kept
from semslam.runs.color_only.poses import KEPT, VisualPoses
from semslam.runs.color_only.tracked import visual_poses
from semslam.runs.config import RunConfig
from semslam.runs.finished.extend import extend
from semslam.runs.finished.fill import fill_holes
from semslam.runs.finished.held_out import judged_by_held_out
from semslam.runs.finished.planes import complete_planes
from semslam.runs.folder import RunFolder
from semslam.runs.given.checks import BY_IMAGES, check_settings
from semslam.runs.given.depth_camera import tell_of_depth_camera
from semslam.runs.given.verdict import PoseVerdict, with_verdict
from semslam.runs.labels_ahead import LabelsAhead
from semslam.runs.poses import ListedPoses, PosesOfFile, PoseSource, pose_source
from semslam.runs.progress import NoMap
from semslam.runs.recording import check_apart, with_absolute_paths
from semslam.runs.run import Run
from semslam.runs.storage.lock import unlock
from semslam.slam import Slam, SlamConfig
from semslam.tracking.given_poses import GivenPoses
from semslam.tracking.predicted_poses import PoseOf, PredictedPoses
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from sequences import Sequence

logger = logging.getLogger(__name__)

PREDICTED_FRAMES = 3  # whose predicted depth tells the range of all
MESH_EVERY = 5  # frames; a mesh at 10 mm changes little with more, and each costs as much as fusing three


def prepare(
    config: RunConfig,
    out: Path,
    *,
    sequence: Sequence | None = None,
    network: Network | None = None,
    resume: bool = False,
    overwrite: bool = False,
    checkpoint: float | None = None,
    report: Callable[[], object] = lambda: None,
) -> Run:
    """A run ready to iterate. ValueError or OSError, one line, for what cannot be done.

    Where depth is predicted and poses are tracked, all images are tracked here, before the first frame is fused.

    sequence: in place of the one that `config.sequence` names: a camera that records it now. network: in place of the
    one that `config.weights` names. resume: go on with the run that the folder `out` holds. overwrite: replace a run
    with other settings, or an unfinished one, that it holds. checkpoint: see `Run`. report: called after each frame
    that is tracked ahead.
    """
    recorded = sequence is None  # a camera has its frames still to come
    sequence = config.open_sequence() if sequence is None else sequence
    config = with_absolute_paths(config)
    given = sequence.has_poses and config.extend is None
    config = replace(config, poses=config.poses or ("dataset" if given else "tracked"))
    check_settings(config, sequence)
    if recorded and config.slam.perception.depth == "predicted" and config.poses in BY_IMAGES and len(sequence) < 2:
        raise ValueError(f"{config.sequence}: is one frame; tracking by images needs several that overlap")
    check_apart(out, config.sequence)
    if resume and overwrite:
        raise ValueError(f"{out}: --resume goes on with the run that is there, --overwrite replaces it; choose one")
    folder = RunFolder.create(out)
    try:
        new = not resume and not overwrite
        if new:
            folder.check_free(config)
        place = folder.resumable(config) if resume else folder
        goes_on = resume and place.exists
        if resume and not goes_on:
            logger.warning("%s: there is no run to go on with (--resume); a new one begins", out)
        config, sequence, verdict = with_verdict(config, sequence, place if goes_on else None)
        if new:
            folder.check_free(config)  # now that it is known how poses are meant
        if not resume:
            place = folder.fresh()
        run = _run(config, sequence, network, place, resume, checkpoint, report, verdict)
        if recorded and not resume and config.slam.perception.depth == "sensor":
            tell_of_depth_camera(config, sequence, verdict, run.slam.network)
        return run
    except BaseException:
        with suppress(OSError):  # unless something is in it
            folder.replacement.path.rmdir()
        unlock(folder.path)
        raise


def _run(
    config: RunConfig,
    sequence: Sequence,
    network: Network | None,
    folder: RunFolder,
    resume: bool,
    checkpoint: float | None,
    report: Callable[[], object],
    verdict: PoseVerdict,
) -> Run:
    """The run of settings that can be met, in a folder that is ours; the arguments are those of `prepare`, and what
    the images say of given poses."""
    if not resume:
        for name in (KEPT, FITTED):
            (folder.path / name).unlink(missing_ok=True)  # of a run that was given up here
    slam, perception = config.slam, config.slam.perception
    in_time = [found for found in timestamps(sequence) if found.level != "hint"]
    for found in doubtful_intrinsics(sequence.camera) + in_time:
        logger.warning("%s: %s; %s", config.sequence, found.what, found.remedy)
    if perception.depth == "sensor":
        slam = with_noise_of(config.sensor or sequence.sensor, slam)
        slam = replace(slam, fusion=with_range(slam.fusion, sequence))
        _tell_range(slam, config.slam)
    if network is None and (config.fill or "predicted" in (perception.depth, perception.labels)):
        network = networks.predictor(perception.classes, config.weights, config.engine, sequence.camera.shape)
    if perception.labels == "predicted" and (mismatch := classes_of_another_scene(slam, sequence)):
        logger.warning("%s: %s", config.sequence, mismatch)
    if perception.depth == "predicted":
        assert network is not None
        slam = with_predicted_range(slam, sequence, network)
        _tell_range(slam, config.slam)
    elif perception.labels == "predicted":
        assert network is not None
        network = LabelsAhead(network)
    places = Places()
    if perception.depth == "predicted" and config.poses in BY_IMAGES:
        assert network is not None
        visual = visual_poses(folder.path, sequence, network, config, report)
        sequence = visual.calibrated(sequence)
        track: PoseSource = visual.given()
    else:
        pose_of = _pose_network(config.pose_weights, sequence.world_origin) if config.pose_weights else None
        track = pose_source(config.poses, sequence, slam.tracking, pose_of, places, verdict.of_file)
        parallax = perception.depth == "predicted" and slam.corrections.multiview
        fits = min(slam.visual.given_std, slam.visual.given_turn_std_deg) > 0
        if parallax and isinstance(track, ListedPoses) and fits:
            assert network is not None
            fitted = fitted_poses(folder.path, sequence, track.T_world_camera, network, config, report)
            track.T_world_camera = fitted.listed()
    sensed = Perception(perception, sequence.camera, sequence.label_set, network)
    perceive: Perceive = sensed
    corrections = None
    if perception.depth == "predicted":
        corrections = correction_of(slam, sequence, sensed, track)
        perceive = sensed.sparing(corrections.is_keyframe)
    system = Slam(
        sensed.camera,
        slam,
        perceive=perceive,
        num_classes=sensed.num_classes,
        track=track,
        correct=corrections,
        loops=LoopCloser(track, slam.loops) if config.loops and isinstance(track, Tracker) else None,
        places=places,
        network=network,
    )
    extended = extend(system, config.extend) if config.extend is not None and not (resume and folder.exists) else None
    system.surfels.page_to(folder.path)
    if config.extend is None:
        system.surfels.world_origin = track.world_origin if isinstance(track, PosesOfFile) else sequence.world_origin
    run = Run(config, sequence, system, folder, resume=resume, checkpoint=checkpoint)
    if not (resume and folder.exists):
        run.progress.poses_rejected = list(verdict.rejected)
        run.progress.poses_contradicted = verdict.contradicted
    if config.extend is not None:
        run.slam.associations = run.slam.surfels.journal = None  # those of the earlier frames are not at hand
        if extended is not None:
            run.progress.before, run.progress.others = extended
    return run


def _pose_network(weights: str, world_origin: np.ndarray) -> PoseOf:
    """The network's poses relative to the origin of the map."""
    network = networks.pose_network(weights)
    return lambda color: moved_by(network(color), -world_origin)


def with_noise_of(sensor: str | None, slam: SlamConfig) -> SlamConfig:
    """The settings with the noise of a kind of depth camera wherever noise counts, unless it was set by hand."""
    if sensor is None:
        return slam
    noise, quadratic = SENSORS[sensor]

    def adapted(stage: Any) -> Any:
        usual = type(stage)()
        chosen = (stage.noise, stage.noise_quadratic) != (usual.noise, usual.noise_quadratic)
        return stage if chosen else replace(stage, noise=noise, noise_quadratic=quadratic)

    return replace(
        slam,
        fusion=adapted(slam.fusion),
        tracking=replace(slam.tracking, registration=adapted(slam.tracking.registration)),
        loops=replace(slam.loops, registration=adapted(slam.loops.registration)),
    )


def with_predicted_range(slam: SlamConfig, sequence: Sequence, network: Network) -> SlamConfig:
    """The settings with a range of depth that most of what the network predicts for a few frames lies in.

    What was set stays, and where the usual range of predicted depth is enough, that is left to the corrections.
    """
    usual = fusion_config(slam.corrections, slam.fusion).range
    size = (sequence.camera.width, sequence.camera.height)

    def depth_of(index: int) -> np.ndarray:
        return network(sequence.color_of(index), size, sequence.camera.fx).depth

    chosen = with_range(slam.fusion, sequence, depth_of, usual, PREDICTED_FRAMES)
    return slam if chosen.range == usual else replace(slam, fusion=chosen)


def _tell_range(slam: SlamConfig, asked: SlamConfig) -> None:
    near, far = slam.fusion.range
    if (near, far) != asked.fusion.range:
        logger.warning(
            "depth from %.3g to %.3g m is used, where the readings are (slam.fusion.near and far set it)", near, far
        )


_NO_DEPTH = {
    "sensor": "no frame has depth that can be used",
    "predicted": "no frame has depth that is sure enough (it is measured by parallax: the camera has to move, and a "
    "part of a recording may be too short for that)",
}


def _why_none(run: Run) -> str:
    """Why no frame was fused: lost frames explain it only where no frame was tracked."""
    progress = run.progress
    tracked, lost = len(set(progress.indices) - set(progress.lost)), len(progress.lost)
    if not tracked:
        return progress.reason or "no frame could be read"
    why = _NO_DEPTH[run.config.slam.perception.depth]
    return f"frames that could not be tracked: {lost}; of the {tracked} others {why}" if lost else why


def finish(run: Run, mesh: bool = True) -> dict[str, Any]:
    """Write everything that a run leaves behind; returns its metrics."""
    views = run.slam.correct
    if isinstance(views, MultiViewDepth) and not views.ended:
        run.remove_unsure(views.config.least_confidence)
        views.ended = True
    run.judge_depth()  # where the last frames that tell could not be read
    run.save()
    if run.progress.before and not run.progress.frames_of(0):
        raise NoMap(
            f"{run.config.sequence}: none of its frames was found in {run.config.extend}, so that nothing is "
            f"added to that map; do both show the same place?"
        )
    if run.progress.fused == 0:
        raise NoMap(f"{run.config.sequence}: no frame was fused, so there is no map; {_why_none(run)}")
    metrics = run.metrics()
    if metrics["depth_used"] is not None and metrics["depth_used"] < LITTLE:
        near, far = run.slam.fusion.config.range
        logger.warning(
            "%.0f %% of the depth readings lie between %.3g and %.3g m and were used (slam.fusion.near and far set it)",
            *(100 * metrics["depth_used"], near, far),
        )
    if run.slam.network is not None:
        network = run.slam.network
        metrics |= {"engine": network.engine, "engine_same_for_any_threads": network.same_for_any_threads}
    if isinstance(run.slam.track, PosesOfFile):
        metrics |= run.slam.track.figures()
    given = isinstance(run.slam.track, GivenPoses) and not isinstance(run.slam.track, PredictedPoses)
    if given and run.config.slam.perception.depth == "sensor":
        metrics["poses_contradicted"] = run.progress.poses_contradicted
    if isinstance(run.slam.track, ListedPoses):
        metrics["poses_rejected"] = run.progress.poses_rejected
    besides = 0.0  # seconds, before the first frame was fused and after the last
    planes = isinstance(views, MultiViewDepth) and views.config.planes
    if run.config.fill or planes:
        began = time.perf_counter()
        added = complete_planes(run) if planes else fill_holes(run)
        run.filled = added.cloud
        run.folder.save_filled(added.cloud)
        besides += time.perf_counter() - began
        metrics |= added.figures | {"planes_seconds" if planes else "fill_seconds": besides}
    if run.progress.held_out:
        metrics.update(judged_by_held_out(run))
    if (visual := load_kept(run.folder.path / KEPT, VisualPoses, len(run.sequence))) is not None:
        metrics |= visual.figures() | {"scale_from": run.config.scale_from or "network"}
        besides += visual.seconds
    if (fitted := load_kept(run.folder.path / FITTED, FittedPoses, len(run.sequence))) is not None:
        metrics |= fitted.figures()
        besides += fitted.seconds
    if besides:
        metrics["frames_per_second"] = metrics["frames"] / (metrics["seconds"] + besides)
    if run.progress.before:
        metrics["surfels_of_earlier_frames"] = run.slam.surfels.count_earlier()
    folder = run.folder
    folder.save_metrics(metrics)
    clouds = run.clouds()
    labels = LABEL_SETS[run.config.slam.perception.classes]
    export.write_map_in_parts(folder.map, clouds, labels)
    _write_parts(run)
    if len(clouds) == 0:
        run.folder = folder.published()
        return metrics
    pictures.preview_in_parts(folder.preview, clouds, labels, title=folder.title, paths=run.progress.paths())
    folder.mesh.unlink(missing_ok=True)  # an older run's
    if mesh:
        began = time.perf_counter()
        _write_mesh(run, clouds)
        metrics["mesh_seconds"] = time.perf_counter() - began
        folder.save_metrics(metrics)
    run.folder = folder.published()
    return metrics


def _write_parts(run: Run) -> None:
    """Write the sub-maps that have not met the largest one: each as surfels and a trajectory, in a world of its own."""
    progress, origin = run.progress, run.slam.surfels.world_origin
    if len(progress.parts) == 1:
        return
    labels = LABEL_SETS[run.config.slam.perception.classes]
    for number, submap in enumerate(progress.parts[1:], 2):
        export.write_map_in_parts(run.folder.part_map(number), run.clouds(submap), labels)
        trajectory = progress.trajectory().selected(progress.tracked_in(submap))
        run.folder.save_part_trajectory(number, trajectory, origin)


def _write_mesh(run: Run, clouds: CloudInParts) -> None:
    """mesh.ply: Open3D's TSDF of every n-th frame at its final pose, labelled from the surfels; of views of the map
    where it was begun by another run, whose frames are not at hand.

    Of a map in parts it is as fine as the memory that is allowed lets it be, and labelled from some of the surfels.
    """
    config = run.config.slam.perception
    reach = ReconstructionConfig.reaching(run.slam.fusion.config.range[1])
    memory = run.config.slam.map.memory_bytes
    if clouds.whole is not None or memory is None:
        cloud = run.cloud() if clouds.whole is None else clouds.whole
    else:
        finest, reach = reach, reach.within(memory, clouds)
        if reach != finest:
            logger.warning(
                "the mesh has voxels of %.0f mm in place of %.0f, which is what %s of memory allows (slam.map.memory)",
                *(1e3 * reach.voxel_size, 1e3 * finest.voxel_size, run.config.slam.map.memory),
            )
        drawn = run.progress.before or config.depth == "predicted"  # the frames' depth is what the map shows
        cloud = run.cloud() if drawn else clouds.sample(memory // LABELLING_BYTES)
    if run.progress.before:
        assert run.slam.places is not None
        mesh = mesh_of_map(cloud, run.slam.fusion.camera, run.slam.places.T_world_camera, reach)
        export.write_mesh(run.folder.mesh, mesh, LABEL_SETS[config.classes])
        return
    perceive = Perception(replace(config, labels="none"), run.sequence.camera, None, run.slam.network)
    repeated = set(run.progress.depth_repeated)
    posed = [(index, T) for index, T in run.progress.posed().items() if index not in repeated]

    def observed(index: int, T: np.ndarray) -> Observation:
        frame = run.sequence.unlabelled(index)
        # predicted depth is corrected on its way into the map, and only there
        return _rendered(frame, cloud, perceive, T) if config.depth == "predicted" else perceive(frame)

    mesh = reconstructed(((observed(i, T), T) for i, T in posed[::MESH_EVERY]), cloud, reach)
    export.write_mesh(run.folder.mesh, mesh, LABEL_SETS[config.classes])


def _rendered(frame: Frame, cloud: SurfelCloud, perception: Perception, T_world_camera: np.ndarray) -> Observation:
    """A frame whose depth is what the map shows there."""
    depth = render(cloud, perception.camera, T_world_camera).depth
    depth = np.where(np.isfinite(depth), depth, np.float32(0))
    return Observation(frame, perception.camera, perception.resized_color(frame), depth)
