"""The correction of predicted depth that a run's settings name."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.depth.corrections import CorrectionsConfig, DepthCorrections
from semslam.depth.multiview import MultiViewDepth
from semslam.frame import Frame, Observation
from semslam.perception import Perception
from semslam.runs.poses import PoseSource
from semslam.tracking.predicted_poses import PredictedPoses


def correction_of(
    config: CorrectionsConfig, sequence: Any, perception: Perception, track: PoseSource
) -> DepthCorrections | MultiViewDepth:
    """What is done to the network's depth of a `sequences.Sequence`, whose poses `track` gives."""
    if not config.multiview:
        patience = min(30, len(sequence) // 2)
        return DepthCorrections(perception.camera, config, track.predicted_pose, patience)
    T_world_camera = [_given(track, sequence, index) for index in range(len(sequence))]
    return MultiViewDepth(perception.camera, T_world_camera, partial(_color_of, sequence, perception))


def _given(track: PoseSource, sequence: Any, index: int) -> np.ndarray | None:
    """The pose of a frame before its turn: by its number, time and recorded pose, and by its image for a network."""
    color = np.zeros((1, 1, 3), np.uint8)
    if isinstance(track, PredictedPoses):
        if (whole := sequence.readable(index)) is None:
            return None
        color = whole.color
    recorded = None if sequence.poses is None else sequence.poses[index]
    frame = Frame(index, float(sequence.timestamps[index]), color, sequence.camera, T_world_camera=recorded)
    return track.predicted_pose(Observation(frame, Camera(1, 1, 1, 1, 0, 0), color, np.zeros((1, 1), np.float32)))


def _color_of(sequence: Any, perception: Perception, index: int) -> np.ndarray:
    return perception.resized_color(sequence[index])
