"""Surfaces where a run's depth camera measured nothing, from parallax and a network, after all frames are posed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.cloud import SurfelCloud
from semslam.compiled import Pinhole, Pose
from semslam.depth.filling import HoleFilling, sigma_of
from semslam.depth.multiview import MultiViewConfig, MultiViewDepth
from semslam.engine.chunks import visible_chunks
from semslam.engine.depth_filter import Noise
from semslam.files.failures import raise_passing
from semslam.perception import Perceive, Perception
from semslam.rendering.splatting import render
from semslam.runs.poses import ListedPoses
from semslam.runs.run import Run
from semslam.slam import Correct, Slam, SlamConfig

logger = logging.getLogger(__name__)
DENSER = 0.8  # times as far are keyframes apart as elsewhere
USUAL_DEPTH = 2.0  # metres, at which a filled surfel's confidence is compared with a measured one's


@dataclass(frozen=True, eq=False)
class AddedSurfels:
    """What is added to the map of a run at its end, and how good it is."""

    cloud: SurfelCloud
    figures: dict[str, Any]


def _denser(multiview: MultiViewConfig) -> MultiViewConfig:
    """The settings with keyframes nearer to one another: they see into holes, which is all that they are for."""
    step, turn = DENSER * multiview.keyframe_step, DENSER * multiview.keyframe_turn_deg
    return replace(multiview, keyframe_step=step, keyframe_turn_deg=turn)


def fill_holes(run: Run) -> AddedSurfels:
    """Surfels where the map of a finished run has none, from the keyframes of the largest sub-map at their final poses.

    They are fused in a map of their own, which is in memory, so that no measured surfel changes and no frame is tracked
    against them. Of a run's map that lies in files only what is in view is read. Their confidence is that of measured
    surfels times the ratio of the variances, the sensor's and theirs.
    """
    config, network, posed = run.config.slam, run.slam.network, run.progress.fused_poses()
    assert network is not None
    noise = Noise.of(*(run.progress.noise or _noise(run)))
    perception = replace(config.perception, depth="predicted")
    perceive = Perception(perception, run.sequence.camera, run.sequence.label_set, network)
    T_world_camera = [posed.get(i) for i in range(len(run.sequence))]

    def shown(T: np.ndarray) -> np.ndarray:
        return measured_depth(run, perceive.camera, T)

    def depth_of(index: int) -> np.ndarray:
        frame = run.frames.try_read(index)
        return np.zeros(run.sequence.camera.shape, np.float32) if frame is None or frame.depth is None else frame.depth

    views = MultiViewDepth(perceive.camera, T_world_camera, run.sequence.color_of, _denser(config.multiview))
    filling = HoleFilling(views, noise, shown)
    near, far = run.slam.fusion.config.range
    config = replace(config, perception=perception, fusion=replace(config.fusion, near=near, far=far))
    cloud = fused_apart(run, config, perceive, lambda frame: perceive.observe(frame, True), views.has_moved, filling)
    cloud = cloud.selected(~filling.contradicted(cloud.positions, depth_of))
    sigma = float(sigma_of(USUAL_DEPTH, noise)) / USUAL_DEPTH
    weight = min(1.0, (sigma / config.multiview.unit_std) ** 2)
    cloud = replace(cloud, confidence=cloud.confidence * np.float32(weight))
    counts = {
        "surfels_filled": len(cloud),
        "fill_surfels_share": len(cloud) / max(len(cloud) + len(run.clouds()), 1),
        "fill_keyframes": len(filling.keyframes),
        "fill_without_parallax": filling.without_parallax,
    }
    return AddedSurfels(cloud, counts | filling.counts.figures())


def fused_apart(
    run: Run,
    config: SlamConfig,
    perception: Perception,
    perceive: Perceive,
    has_moved: Callable[[int], bool],
    correct: Correct | None = None,
) -> SurfelCloud:
    """A map of its own, in memory, of the frames that a finished run fused, at their final poses.

    perception: whose camera and classes the observations of `perceive` have. has_moved: which frames are fused, by
    their index. Frames that can be read no more are left out.
    """
    posed = run.progress.fused_poses()
    track = ListedPoses([posed.get(i) for i in range(len(run.sequence))], "the run")
    classes = perception.num_classes
    slam = Slam(perception.camera, config, perceive=perceive, num_classes=classes, track=track, correct=correct)
    for index in posed:
        if has_moved(index):
            try:
                frame = run.read(index)
            except (ValueError, OSError) as problem:
                raise_passing(problem)
                logger.warning(
                    "frame %d is left out when surfels are added: %s", run.sequence.number_of(index), problem
                )
                continue
            slam.step(frame)
    return replace(slam.cloud(), world_origin=run.slam.surfels.world_origin)


def measured_depth(run: Run, camera: Camera, T_world_camera: np.ndarray) -> np.ndarray:
    """(H, W) float32 metres of a run's map from a pose, of sub-maps the largest; infinite where it shows nothing.

    Of a map in files only the chunks in view are read, some at a time.
    """
    surfels, submap = run.slam.surfels, run.progress.parts[0]
    chunks = np.empty(surfels.n_chunks, np.int32)
    view = Pose.of(T_world_camera), Pinhole.of(camera), np.float32(0), np.float32(np.inf)
    chunks = chunks[: visible_chunks(surfels.chunks(), np.float32(surfels.margin), *view, chunks)]
    depth = np.full(camera.shape, np.float32(np.inf))
    for slots in surfels.parts(chunks):
        cloud = run.progress.part_of(surfels.cloud_of(slots), submap)
        np.minimum(depth, render(cloud, camera, T_world_camera, cull_back=False).depth, out=depth)
    return depth


def _noise(run: Run) -> tuple[float, float]:
    """Of the depth camera, where tracking has not measured it."""
    c = run.slam.fusion.config
    return c.noise, c.noise_quadratic
