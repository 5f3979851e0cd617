"""Surfaces where a run's depth camera measured nothing, from parallax and a network, after all frames are posed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semslam.cloud import SurfelCloud
from semslam.depth.filling import HoleFilling, sigma_of
from semslam.depth.multiview import MultiViewDepth
from semslam.engine.depth_filter import Noise
from semslam.perception import Perception
from semslam.rendering.splatting import render
from semslam.runs.poses import ListedPoses
from semslam.runs.run import Run
from semslam.slam import Slam

USUAL_DEPTH = 2.0  # metres, at which a filled surfel's confidence is compared with a measured one's


@dataclass(frozen=True, eq=False)
class FilledHoles:
    """What was added to a run's map, and how good it is."""

    cloud: SurfelCloud
    figures: dict[str, Any]


def fill_holes(run: Run) -> FilledHoles:
    """Surfels where the map of a finished run has none, from the keyframes of the largest sub-map at their final poses.

    They are fused in a map of their own, so that no measured surfel changes and no frame is tracked against them. Both
    maps are in memory for it, also where the run's lies in files.
    Their confidence is that of measured surfels times the ratio of the variances, the sensor's and theirs.
    """
    config, network, posed = run.config.slam, run.slam.network, run.progress.posed()
    assert network is not None
    measured, noise = run.cloud(), Noise.of(*(run.progress.noise or _noise(run)))
    perception = replace(config.perception, depth="predicted")
    perceive = Perception(perception, run.sequence.camera, run.sequence.label_set, network)
    T_world_camera = [posed.get(i) for i in range(len(run.sequence))]

    def shown(T: np.ndarray) -> np.ndarray:
        return render(measured, perceive.camera, T, cull_back=False).depth

    def depth_of(index: int) -> np.ndarray:
        depth = run.sequence.unlabelled(index).depth
        assert depth is not None  # of a keyframe
        return depth

    views = MultiViewDepth(perceive.camera, T_world_camera, run.sequence.color_of, config.multiview)
    filling = HoleFilling(views, noise, shown)
    near, far = run.slam.fusion.config.range
    slam = Slam(
        perceive.camera,
        replace(config, perception=perception, fusion=replace(config.fusion, near=near, far=far)),
        perceive=lambda frame: perceive.observe(frame, True),
        num_classes=perceive.num_classes,
        track=ListedPoses(T_world_camera, "the run"),
        correct=filling,
    )
    for index in posed:
        if views.has_moved(index):
            slam.step(run.sequence[index])
    cloud = slam.cloud()
    cloud = cloud.selected(~filling.contradicted(cloud.positions, depth_of))
    sigma = float(sigma_of(USUAL_DEPTH, noise)) / USUAL_DEPTH
    weight = min(1.0, (sigma / config.multiview.unit_std) ** 2)
    cloud = replace(cloud, confidence=cloud.confidence * np.float32(weight), world_origin=measured.world_origin)
    share = len(cloud) / max(len(cloud) + len(measured), 1)
    counts = {"surfels_filled": len(cloud), "fill_surfels_share": share, "fill_keyframes": len(filling.keyframes)}
    return FilledHoles(cloud, counts | filling.counts.figures())


def _noise(run: Run) -> tuple[float, float]:
    """Of the depth camera, where tracking has not measured it."""
    c = run.slam.fusion.config
    return c.noise, c.noise_quadratic
