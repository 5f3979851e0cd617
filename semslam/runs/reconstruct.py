"""From settings to a run that is ready to iterate."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from semslam.camera import SENSORS, USUAL_SENSOR, Camera
from semslam.depth.corrections import fusion_config
from semslam.depth.readout import readout_of
from semslam.doctor import intrinsics, label_edges
from semslam.doctor.depth.range import with_range, without_cut_off
from semslam.doctor.depth.scatter import scatter_of
from semslam.doctor.order.copies import copies
from semslam.doctor.order.interleaved import interleaved
from semslam.doctor.order.timestamps import timestamps
from semslam.doctor.scene import classes_of_another_scene
from semslam.frame import Frame
from semslam.loops.loop_closure import LoopCloser
from semslam.perception import Network, Perceive, Perception, PerceptionConfig
from semslam.poses import moved_by
from semslam.runs import networks
from semslam.runs.color_only.depth import correction_of
from semslam.runs.color_only.fitted import FITTED, fitted_poses
from semslam.runs.color_only.poses import KEPT
from semslam.runs.color_only.recalling import RecallingNetwork, RecallingSequence
from semslam.runs.color_only.tracked import visual_poses
from semslam.runs.config import RunConfig
from semslam.runs.finished.extend import check_new, extend
from semslam.runs.folder import RunFolder
from semslam.runs.given.checks import BY_IMAGES, check_settings
from semslam.runs.given.depth_camera import tell_of_depth_camera
from semslam.runs.given.verdict import PoseVerdict, with_verdict
from semslam.runs.labels_ahead import LabelsAhead
from semslam.runs.poses import ListedPoses, PosesOfFile, PoseSource, pose_source
from semslam.runs.recording import check_apart, with_absolute_paths
from semslam.runs.run import Run
from semslam.runs.storage.lock import unlock
from semslam.slam import Correct, Slam, SlamConfig
from semslam.tracking.predicted_poses import PoseOf
from semslam.tracking.relocalisation.places import Places
from semslam.tracking.tracker import Tracker
from sequences import Sequence

logger = logging.getLogger(__name__)

PREDICTED_FRAMES = 3  # whose predicted depth tells the range of all


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
    left_open = not config.poses
    config = _with_poses(with_absolute_paths(config), sequence)
    check_settings(config, sequence, recorded)
    check_apart(out, config.sequence)
    if config.extend is not None and os.path.realpath(config.extend) == os.path.realpath(out):
        raise ValueError(f"{out}: a run is not written over the one that it extends; name another --out")
    if resume and overwrite:
        raise ValueError(f"{out}: --resume goes on with the run that is there, --overwrite replaces it; choose one")
    if recorded and config.slam.perception.depth == "sensor":
        sequence, cut_off = without_cut_off(sequence)
        for found in cut_off:
            logger.warning("%s: %s; %s", config.sequence, found.what, found.remedy)
    folder = RunFolder.create(out)
    try:
        new = not resume and not overwrite
        if new:
            folder.check_free(config)
        place = folder.resumable(config) if resume else folder
        goes_on = resume and place.exists
        if resume and not goes_on:
            folder.check_free(config)
            logger.warning("%s: there is no run to go on with (--resume); a new one begins", out)
        config, sequence, verdict = with_verdict(config, sequence, place if goes_on else None)
        if new:
            folder.check_free(config)  # now that it is known how poses are meant
        if not resume:
            place = folder.fresh()
        run = _run(config, sequence, network, place, resume, checkpoint, report, verdict)
        if recorded and not resume and config.slam.perception.depth == "sensor":
            tell_of_depth_camera(config, sequence, verdict, run.slam.network)
        if config.extend is not None and left_open and sequence.has_poses:
            told = "%s: its poses are not used: its frames are tracked in the map of %s"
            logger.warning(told, config.sequence, config.extend)
        if isinstance(run.slam.track, Tracker):  # others need less of it, and are not late
            rehearse()
        return run
    except BaseException:
        with suppress(OSError):  # unless something is in it
            folder.replacement.path.rmdir()
        unlock(folder.path)
        raise


def _with_poses(config: RunConfig, sequence: Sequence) -> RunConfig:
    """The settings with where poses come from: where they leave it open the recording, if it has poses that count."""
    given = sequence.has_poses and config.extend is None
    return replace(config, poses=config.poses or ("dataset" if given else "tracked"))


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
        _forget_poses(folder)
    _tell_doubts(config, sequence)
    slam = _with_depth_camera(config, sequence)
    if network is None and (config.fill or "predicted" in (slam.perception.depth, slam.perception.labels)):
        # see LabelsAhead and MultiViewDepth
        beside_others = not config.fill if slam.perception.depth == "sensor" else slam.corrections.multiview
        of_weights = slam.perception.classes, config.weights, config.engine
        network = networks.predictor(*of_weights, sequence.camera.shape, beside_others)
    if slam.perception.labels == "predicted" and (mismatch := classes_of_another_scene(slam, sequence)):
        logger.warning("%s: %s", config.sequence, mismatch)
    if slam.perception.depth == "predicted":
        assert network is not None
        slam = with_predicted_range(slam, sequence, network)
        _tell_range(slam, config.slam)
    elif slam.perception.labels == "predicted":
        assert network is not None
        network = LabelsAhead(network)
    places, used = Places(), ""
    if slam.perception.depth == "predicted" and config.poses in BY_IMAGES:
        assert network is not None
        visual = visual_poses(folder.path, sequence, network, config, report)
        sequence = visual.calibrated(sequence)
        track: PoseSource = visual.given()
        used = KEPT
    else:
        pose_of = _pose_network(config.pose_weights, sequence.world_origin) if config.pose_weights else None
        track = pose_source(config.poses, sequence, slam.tracking, pose_of, places, verdict.of_file)
        if isinstance(track, ListedPoses) and _are_fitted(slam):
            assert network is not None
            fitted = fitted_poses(folder.path, sequence, track.T_world_camera, network, config, report)
            track.T_world_camera, sequence = fitted.listed(), fitted.calibrated(sequence)
            track.readable, used = fitted.readable, FITTED
    _forget_poses(folder, used)
    if slam.perception.depth == "predicted":
        sequence = RecallingSequence(sequence)
    system = _system(replace(config, slam=slam), sequence, network, track, places)
    return _begun(config, sequence, system, folder, resume, checkpoint, verdict)


def _forget_poses(folder: RunFolder, used: str = "") -> None:
    """Remove what was kept of poses by images, but for the file `used`, for a run that was given up in this folder."""
    for name in {KEPT, FITTED} - {used}:
        (folder.path / name).unlink(missing_ok=True)


def _tell_doubts(config: RunConfig, sequence: Sequence) -> None:
    """Warn of intrinsics, times and an order of frames that can hardly be right."""
    of_order = timestamps(sequence) + copies(sequence)
    if config.slam.perception.labels == "truth" and (of_labels := label_edges.measured(sequence)) is not None:
        of_order += of_labels.findings()
    in_time = [found for found in of_order if found.level != "hint"] + interleaved(sequence)
    for found in intrinsics.doubtful(sequence.camera) + in_time:
        logger.warning("%s: %s; %s", config.sequence, found.what, found.remedy)


def _with_depth_camera(config: RunConfig, sequence: Sequence) -> SlamConfig:
    """The settings with the noise and the range of the depth camera, where one is used."""
    if config.slam.perception.depth != "sensor":
        return config.slam
    sensor = config.sensor or sequence.sensor
    larger = scatter_of(sequence, *SENSORS[sensor or USUAL_SENSOR])
    if larger > 1:
        logger.info("%s: depth scatters %.1f times as much as expected of its camera", config.sequence, larger)
    slam = with_noise_of(sensor, config.slam, larger)
    slam = replace(slam, fusion=with_range(slam.fusion, sequence))
    if config.poses != "predicted":  # of a network, whose errors are larger than what the camera moves meanwhile
        slam = replace(slam, perception=_synchronising(slam.perception, sequence))
    _tell_range(slam, config.slam)
    return slam


def _synchronising(perception: PerceptionConfig, sequence: Sequence) -> PerceptionConfig:
    """The settings with the readout of the depth camera, where its depth is moved to one moment."""
    if not perception.synchronise or perception.readout is not None:
        return perception
    return replace(perception, readout=readout_of(sequence))


def _are_fitted(slam: SlamConfig) -> bool:
    """Whether given poses are held against the images: for depth by parallax, unless the settings trust the poses."""
    parallax = slam.perception.depth == "predicted" and slam.corrections.multiview
    return parallax and min(slam.visual.given_std, slam.visual.given_turn_std_deg) > 0


def _system(config: RunConfig, sequence: Sequence, network: Network | None, track: PoseSource, places: Places) -> Slam:
    """The parts put together. config: as the recording asks for it. places: those that `track` comes back to."""
    slam = config.slam
    asked = RecallingNetwork(network) if network is not None and slam.perception.depth == "predicted" else network
    sensed = Perception(slam.perception, sequence.camera, sequence.label_set, asked)
    perceive: Perceive = sensed
    correct: Correct | None = None
    if slam.perception.depth == "predicted":
        correct = corrections = correction_of(slam, sequence, sensed, track)
        perceive = sensed.sparing(corrections.is_keyframe)
    return Slam(
        sensed.camera,
        slam,
        perceive=perceive,
        num_classes=sensed.num_classes,
        track=track,
        correct=correct,
        loops=LoopCloser(track, slam.loops) if config.loops and isinstance(track, Tracker) else None,
        places=places,
        network=network,
    )


def _begun(
    config: RunConfig,
    sequence: Sequence,
    system: Slam,
    folder: RunFolder,
    resume: bool,
    checkpoint: float | None,
    verdict: PoseVerdict,
) -> Run:
    """The run of a system at its first frame, in the map of the run that it extends, or where it was left."""
    goes_on = resume and folder.exists
    extended = None
    if config.extend is not None and not goes_on:
        check_new(config, sequence)
        extended = extend(system, config.extend)
    system.surfels.page_to(folder.path)
    if config.extend is None:
        track = system.track
        system.surfels.world_origin = track.world_origin if isinstance(track, PosesOfFile) else sequence.world_origin
    run = Run(config, sequence, system, folder, resume=resume, checkpoint=checkpoint)
    if not goes_on:
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


def with_noise_of(sensor: str | None, slam: SlamConfig, larger: float = 1.0) -> SlamConfig:
    """The settings with the noise of a kind of depth camera, or so many times that, wherever noise counts, unless it
    was set by hand."""
    noise, quadratic = (larger * value for value in SENSORS[sensor or USUAL_SENSOR])

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


@cache
def rehearse() -> None:
    """Load the compiled code that every tracked frame needs, once, so that the first frames are not late: a system of
    its own tracks and fuses a small picture of a rough wall three times."""
    width, height = 160, 120
    camera = Camera(width, height, 160, 160, (width - 1) / 2, (height - 1) / 2)
    u, v = np.meshgrid(np.arange(width), np.arange(height))
    rough = np.sin(u / 5) * np.cos(v / 7) + np.sin((u + v) / 11)  # -2..2
    color = np.repeat((127 + 60 * rough).astype(np.uint8)[:, :, None], 3, axis=2)
    depth = (2 + 0.1 * rough).astype(np.float32)
    tracker = Tracker()
    config = SlamConfig(perception=PerceptionConfig(labels="truth"))
    slam = Slam(camera, config, track=tracker, loops=LoopCloser(tracker), places=tracker.places, label_set="nyu13")
    for k in range(3):
        slam.step(Frame(k, k / 30, color, camera, depth, labels=np.zeros((height, width), np.uint8)))
