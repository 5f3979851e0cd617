"""A pose network in the map: its poses alone, or as the places where a lost camera is looked for.

The network is any function of an image. Its poses err by decimetres and degrees, so that a map
made from them alone is thick. As proposals they only have to be near enough for registration, which alone decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from semslam import poses
from semslam.frame import Frame, Observation, Tracking, View
from semslam.stage import Stage
from semslam.tracking.given_poses import GivenPoses
from semslam.tracking.judgement import TrackingConfig
from semslam.tracking.tracker import Propose, Tracker

PoseOf = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) uint8 RGB -> T_world_camera (4, 4)

SPREAD_M = 0.15  # of the proposals around a predicted pose
SPREAD_DEG = 8.0


class PredictedPoses(GivenPoses):
    """Takes every pose from a pose network, and neither loses its way nor knows it."""

    def __init__(self, pose_of: PoseOf, config: TrackingConfig | None = None) -> None:
        """config: see `GivenPoses`."""
        super().__init__(self._pose, "the pose network", config)
        self._network = pose_of
        self._last: tuple[Frame, np.ndarray] | None = None  # corrections of depth ask before the frame is tracked

    def _pose(self, frame: Frame) -> np.ndarray:
        if self._last is None or self._last[0] is not frame:
            self._last = frame, self._network(frame.color)
        return self._last[1]


class RefinedTrack(Stage):
    """Tracking of each frame by itself: the network's pose, registered against the map. What does not fit is lost.

    Every frame is a new camera that looks for the map, so that no error is carried from one frame to the next, and no
    motion model is used. The first one lies where the data set says, or else where the network does.
    """

    def __init__(self, pose_of: PoseOf, config: TrackingConfig | None = None) -> None:
        self.config, self.propose = config, proposals(pose_of)
        self.begun = False  # whether a frame lies in the map

    def __call__(self, observation: Observation, predict: Callable[[np.ndarray], View]) -> Tracking:
        tracking = Tracker(self.config, propose=self.propose)(observation, predict)
        if self.begun and tracking.ok and tracking.covariance is None:  # placed where the map is empty
            return replace(tracking, ok=False, reason="the map does not fit where the network sees the camera")
        self.begun = self.begun or tracking.ok
        return tracking

    def predicted_pose(self, observation: Observation) -> np.ndarray | None:
        """None: only registration tells where the camera is."""
        return None

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        return {"begun": np.array(self.begun)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.begun = bool(state["begun"])


def proposals(pose_of: PoseOf, offsets: Sequence[np.ndarray] | None = None) -> Propose:
    """For a `Tracker`: the predicted pose of a lost frame, then poses around it, the nearest first.

    Args:
        offsets: transforms (4, 4) in the camera's frame that lead from the predicted pose to the others.
    """
    steps = around() if offsets is None else offsets

    def propose(observation: Observation) -> list[np.ndarray]:
        T = pose_of(observation.frame.color)
        return [T, *(T @ step for step in steps)]

    return propose


def around(metres: float = SPREAD_M, degrees: float = SPREAD_DEG) -> list[np.ndarray]:
    """Twelve steps (4, 4): to and fro along the camera's three axes, and about them.

    Turns come first: what a turn does to the image is what registration follows least far.
    """
    twists = np.concatenate([np.radians(degrees) * np.eye(6)[[4, 3, 5]], metres * np.eye(6)[[0, 2, 1]]])
    return [poses.exp(sign * twist) for twist in twists for sign in (1, -1)]
