"""The correction of predicted depth that a run's settings name."""

from __future__ import annotations

import numpy as np

from semslam.depth.corrections import DepthCorrections
from semslam.depth.multiview import MultiViewDepth
from semslam.perception import Perception
from semslam.runs.poses import ListedPoses, PoseSource
from semslam.slam import SlamConfig
from sequences import Sequence as Recording


def correction_of(
    config: SlamConfig, sequence: Recording, perception: Perception, track: PoseSource
) -> DepthCorrections | MultiViewDepth:
    """What is done to the network's depth of a `sequences.Sequence`, whose poses `track` gives.

    Depth by parallax needs the poses of the frames to come, and good ones: a pose network's err by decimetres.
    """
    if config.corrections.multiview and isinstance(track, ListedPoses):

        def look_at(index: int) -> tuple[np.ndarray, np.ndarray]:
            seen = perception.observe(sequence.read_without_labels(index), wants_labels=False)
            return seen.color, seen.depth

        return MultiViewDepth(perception.camera, track.T_world_camera, sequence.color_of, config.multiview, look_at)
    patience = min(30, len(sequence) // 2)
    return DepthCorrections(perception.camera, config.corrections, track.predicted_pose, patience)
