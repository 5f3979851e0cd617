"""Tracking for those who have poses: the recording's own, a trajectory file's, or a network's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from semslam.frame import Frame, Observation, Tracking, View
from semslam.stage import Stage
from semslam.tracking.judgement import TrackingConfig, judged, why_lost
from semslam.tracking.measuring import MeasuringRegistrar

FIRST = 30  # frames from which the sensor's noise is measured one by one ...
LATER = 10  # ... and afterwards one of so many, since registering takes longer than fusing


def recorded_pose(frame: Frame) -> np.ndarray | None:
    """T_world_camera (4, 4) that was recorded with a frame."""
    return frame.T_world_camera


class GivenPoses(Stage):
    """Takes the pose of each frame from a source that knows it without looking at the map.

    The noise of the depth camera is measured as with tracked poses: some frames are registered against the map, which
    takes what the poses err by out of the residuals. Nothing else follows from where they are found.
    """

    def __init__(
        self,
        pose_of: Callable[[Frame], np.ndarray | None] = recorded_pose,
        source: str = "the sequence",
        config: TrackingConfig | None = None,
    ) -> None:
        """pose_of: T_world_camera of a frame, None where it is not known. source: its name, for people. config: how
        frames are registered to measure the noise; None = it is not measured."""
        self.pose_of = pose_of
        self.source = source
        self._seen = 0  # frames with a pose and a sensor's depth
        self._seen_from: np.ndarray | None = None  # T_world_camera of the last of them: the map is predicted from there
        self._measuring = None if config is None else MeasuringRegistrar(config)

    def __call__(self, observation: Observation, predict: Callable[[np.ndarray], View]) -> Tracking:
        """The given pose; lost where there is none."""
        T = self.predicted_pose(observation)
        if T is None:
            reason = f"{self.source} has no pose for the frame at {observation.frame.timestamp:.3f} s"
            return Tracking(np.eye(4), ok=False, reason=reason)
        tracking = Tracking(T, ok=True)
        # predicted depth comes with its confidence, and its errors are no sensor's
        measuring = self._measuring
        if measuring is None or not measuring.config.measure_noise or observation.confidence is not None:
            return tracking
        if self._seen_from is not None and (self._seen < FIRST or self._seen % LATER == 0):
            found = measuring.register(observation, predict(self._seen_from), T)
            measuring.learn(found, judged(found, why_lost(found, T, 0.0, measuring.config), measuring.config))
        if observation.measures:
            self._seen, self._seen_from = self._seen + 1, np.array(T)
        of_depth = measuring.noise.of_depth  # until a frame has told, fusion goes by its own setting
        return replace(tracking, noise=of_depth.model_now if of_depth.measured else None)

    def predicted_pose(self, observation: Observation) -> np.ndarray | None:
        """The same pose, before anything but the frame is known."""
        return self.pose_of(observation.frame)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        if self._measuring is None:
            return {}
        last = {} if self._seen_from is None else {"last": self._seen_from}
        return self._measuring.noise.state() | {"seen": np.array(self._seen)} | last

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        if self._measuring is not None:
            self._measuring.noise.restore(state)
            self._seen, self._seen_from = int(state["seen"]), state.get("last")
