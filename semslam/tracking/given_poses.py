"""Tracking for those who have poses: the recording's own, a trajectory file's, or a network's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from semslam.frame import Frame, Observation, Tracking, View
from semslam.stage import Stage


def recorded_pose(frame: Frame) -> np.ndarray | None:
    """T_world_camera (4, 4) that was recorded with a frame."""
    return frame.T_world_camera


class GivenPoses(Stage):
    """Takes the pose of each frame from a source that knows it without looking at the map."""

    def __init__(
        self, pose_of: Callable[[Frame], np.ndarray | None] = recorded_pose, source: str = "the sequence"
    ) -> None:
        """pose_of: T_world_camera of a frame, None where it is not known. source: its name, for people."""
        self.pose_of = pose_of
        self.source = source

    def __call__(self, observation: Observation, predict: Callable[[np.ndarray], View]) -> Tracking:
        """The given pose; lost where there is none."""
        T = self.predicted_pose(observation)
        if T is None:
            reason = f"{self.source} has no pose for the frame at {observation.frame.timestamp:.3f} s"
            return Tracking(np.eye(4), ok=False, reason=reason)
        return Tracking(T, ok=True)

    def predicted_pose(self, observation: Observation) -> np.ndarray | None:
        """The same pose, before anything but the frame is known."""
        return self.pose_of(observation.frame)
