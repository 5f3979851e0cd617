"""The main job: from what a person asks for to a run, and from its end to the files that they look at."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semslam import config as configs
from semslam.cloud import SurfelCloud
from semslam.depth.corrections import DepthHelps, HelpsConfig, tracking_config
from semslam.doctor.doctor import implausible_depth
from semslam.frame import Frame, Observation
from semslam.labels import LABEL_SETS, remapping
from semslam.loops.loop_closure import LoopCloser
from semslam.perception import Perception
from semslam.runs.folder import RunFolder
from semslam.runs.run import Run, RunConfig, pose_source
from semslam.slam import Predict, Slam, Track
from semslam.tracking.predicted_poses import PoseOf
from semslam.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

MESH_EVERY = 5  # frames; a mesh at 10 mm changes little with more, and each costs as much as fusing three


def prepare(
    path: str,
    out: Path,
    *,
    config: Path | None = None,
    kind: str | None = None,
    camera: Path | None = None,
    depth_scale: float | None = None,
    depth: str | None = None,
    labels: str | None = None,
    poses: str | None = None,
    pose_weights: str | None = None,
    classes: str | None = None,
    label_every: int | None = None,
    weights: str | None = None,
    engine: str | None = None,
    hold_out: int | None = None,
    loops: bool | None = None,
    helps: str | None = None,
    max_surfels: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> Run:
    """A run ready to iterate. ValueError or OSError, one line, for what cannot be done.

    overwrite: replace a run with other settings, or an unfinished one, that the folder `out` holds.

    What is named here wins over the settings of the file `config`.
    """

    def chosen(settings: Any, **named: Any) -> Any:
        return replace(settings, **{name: value for name, value in named.items() if value is not None})

    base = configs.load(config, RunConfig) if config else RunConfig()
    base = chosen(
        base, sequence=path, kind=kind, camera=None if camera is None else str(camera), depth_scale=depth_scale
    )
    sequence = base.open_sequence()
    perception = chosen(base.slam.perception, depth=depth, labels=labels, classes=classes, label_every=label_every)
    settings = chosen(
        base,
        poses=poses or base.poses or ("dataset" if sequence.has_poses else "tracked"),
        pose_weights=pose_weights,
        hold_out=hold_out,
        loops=loops,
        weights=weights,
        engine=engine,
        slam=replace(
            base.slam,
            perception=perception,
            map=chosen(base.slam.map, max_surfels=max_surfels),
            helps=HelpsConfig.named(helps) if helps else base.slam.helps,
        ),
    )
    depth, labels, classes, hold_out = perception.depth, perception.labels, perception.classes, settings.hold_out
    if hold_out is not None and hold_out < 2:
        raise ValueError(f"--hold-out is {hold_out}, expected at least 2: some frames must be left to fuse")
    if depth == "sensor" and (finding := implausible_depth(sequence)) is not None:
        raise ValueError(f"{path}: {finding.what}; {finding.remedy}")
    if depth == "predicted" and settings.poses == "predicted-refined":
        raise ValueError(
            "--poses predicted-refined registers every frame, which needs the sensor's depth; with --depth predicted "
            "use --poses predicted or tracked"
        )
    if helps and depth != "predicted":
        raise ValueError("--helps is for --depth predicted; leave it out")
    if depth == "predicted" and settings.poses == "tracked":
        logger.warning("predicted depth is too rough to track a camera by: expect lost frames and a bent map")
    folder = RunFolder(Path(out))
    if not resume and not overwrite and (found := folder.in_the_way(settings)):
        raise ValueError(f"{out}: holds {found}; name another --out, or add --overwrite")
    folder = RunFolder.create(out)
    needs_network = "predicted" in (depth, labels)
    pose_of = pose_network(settings.pose_weights) if settings.pose_weights else None
    tracking = settings.slam.tracking
    if depth == "predicted":
        tracking = tracking_config(settings.slam.helps, tracking)
    track = pose_source(settings.poses, sequence, tracking, pose_of)
    closes_loops = settings.loops and isinstance(track, Tracker)
    network = predictor(classes, settings.weights, settings.engine) if needs_network else None
    _compile_for(network, sequence.camera.shape)
    slam = Slam(
        sequence.camera,
        settings.slam,
        track=track,
        loops=LoopCloser(track, settings.slam.loops) if closes_loops else None,  # type: ignore[arg-type]
        label_set=sequence.label_set,
        network=network,
    )
    if depth == "predicted":
        expect = track.predicted_pose if isinstance(track, Tracker) else partial(_given, track, slam.predict)
        given, patience = not isinstance(track, Tracker), min(30, len(sequence) // 2)
        helper = DepthHelps(slam.fusion.camera, settings.slam.helps, expect, given, patience)
        slam.correct, slam.perceive = helper, helper.sparing(slam.perceive)  # type: ignore[arg-type]
    return Run(settings, sequence, slam, folder, resume)


def _given(track: Track, predict: Predict, observation: Observation) -> np.ndarray | None:
    """The pose that a source of given poses has for a frame, before anything of it was perceived."""
    tracking = track(observation, predict)
    return tracking.T_world_camera if tracking.ok else None


def _compile_for(network: Any, shape: tuple[int, int]) -> None:
    """Let a network's engine compile for images (height, width) now: no frame should have to wait for that."""
    if network is not None:
        from networks.inference.predictor import Predictor

        if isinstance(network, Predictor):  # not somebody's own
            network.outputs(np.zeros((*shape, 3), np.uint8))


def weights_file(weights: str | None = None) -> Path:
    """The weights file that a name means; the bundled one by default."""
    from networks.joint import checkpoints

    return Path(weights) if weights else checkpoints.bundled()


def pose_network(weights: str) -> PoseOf:
    """The pose network of a weights file; ValueError where it is another network, or needs more than an image."""
    from networks.pose.predictor import PosePredictor

    predictor = PosePredictor.load(weights)
    name = predictor.metadata["network"]
    if "pose" not in predictor.network.tasks:
        raise ValueError(f"{weights}: a {name!r} network tells no pose; name the weights of one that does")
    if predictor.needs_labels:
        raise ValueError(f"{weights}: a {name!r} network reads labels, which a map has none of before it has a pose")
    return predictor


def predictor(classes: str, weights: str | None = None, engine: str | None = None) -> Any:
    """The network of a weights file (the bundled one by default) with probabilities of the given classes."""
    from networks.inference.predictor import Predictor

    full = Predictor.load(weights, engine=engine)
    if full.label_set == classes:
        return full
    return full.merged(remapping(full.label_set, classes), classes)


def finish(run: Run, mesh: bool = True) -> dict[str, Any]:
    """Write everything that a run leaves behind; returns its metrics."""
    from semslam.geometry import export
    from semslam.rendering import pictures

    run.save()
    if run.progress.fused == 0:
        reason = run.progress.reason or "no frame could be read"
        raise ValueError(f"{run.config.sequence}: no frame was fused, so there is no map; {reason}")
    metrics = run.metrics()
    if run.slam.network is not None:
        metrics["engine"] = run.slam.network.engine
    if run.progress.held_out:
        metrics.update(_judged_by_held_out(run))
    folder = run.folder
    folder.save_metrics(metrics)
    cloud = run.slam.cloud()
    labels = LABEL_SETS[run.config.slam.perception.classes]
    export.write_map_ply(folder.map, cloud, labels)
    trajectory = np.array(run.progress.poses).reshape(-1, 4, 4)
    if len(cloud) == 0:
        return metrics
    pictures.preview(folder.preview, cloud, labels, title=run.sequence.name, trajectory=trajectory)
    folder.mesh.unlink(missing_ok=True)  # an older run's
    if mesh:
        began = time.perf_counter()
        _write_mesh(run, cloud)
        metrics["mesh_seconds"] = time.perf_counter() - began
        folder.save_metrics(metrics)
    return metrics


def _write_mesh(run: Run, cloud: SurfelCloud) -> None:
    """mesh.ply: Open3D's TSDF of every so many-th frame at its final pose, labelled from the surfels."""
    from semslam.geometry import export
    from semslam.geometry.tsdf_mesh import reconstructed

    config = run.config.slam.perception
    perceive = Perception(replace(config, labels="none"), run.sequence.camera, None, run.slam.network)
    lost = set(run.progress.lost)
    posed = [(i, T) for i, T in zip(run.progress.indices, run.progress.poses) if i not in lost]

    def observed(index: int, T: np.ndarray) -> Observation:
        frame = run.sequence[index]
        # predicted depth is corrected on its way into the map, and only there
        return _rendered(frame, cloud, perceive, T) if config.depth == "predicted" else perceive(frame)

    mesh = reconstructed(((observed(i, T), T) for i, T in posed[::MESH_EVERY]), cloud)
    export.write_mesh(run.folder.mesh, mesh, LABEL_SETS[config.classes])


def _rendered(frame: Frame, cloud: SurfelCloud, perception: Perception, T_world_camera: np.ndarray) -> Observation:
    """A frame whose depth is what the map shows there."""
    from semslam.rendering.splatting import render

    depth = render(cloud, perception.camera, T_world_camera).depth
    depth = np.where(np.isfinite(depth), depth, np.float32(0))
    return Observation(frame, perception.camera, perception.resized_color(frame), depth)


def _judged_by_held_out(run: Run) -> dict[str, float]:
    """How well the map predicts the sensor's depth in frames that it was not made from.

    A held-out frame is seen from its recorded pose where those were given, else from the pose between its neighbours'.
    """
    from semslam.rendering.splatting import render

    cloud, trajectory = run.slam.cloud(), run.progress.trajectory()
    errors, valid = [], 0
    for index in run.progress.held_out:
        frame = run.sequence[index]
        T = frame.T_world_camera if run.config.poses == "dataset" else trajectory.at(frame.timestamp)
        if T is None or frame.depth is None:
            continue
        predicted = render(cloud, frame.camera, T, cull_back=False).depth
        fusion = run.slam.fusion.config
        measured = (frame.depth > fusion.near) & (frame.depth < fusion.far)
        seen = measured & np.isfinite(predicted)
        errors.append(np.abs(predicted - frame.depth)[seen])
        valid += int(measured.sum())
    pooled = np.concatenate(errors) if errors else np.zeros(0)
    return {
        "held_out_depth_median_m": float(np.median(pooled)) if len(pooled) else float("nan"),
        "held_out_coverage": len(pooled) / valid if valid else float("nan"),
    }
