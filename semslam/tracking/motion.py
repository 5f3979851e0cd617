"""Where the camera was last and how it moves: what the next pose is expected from."""

from __future__ import annotations

import logging

import numpy as np

from semslam import poses
from semslam.frame import Frame
from semslam.trajectory import Correction

logger = logging.getLogger(__name__)


class Motion:
    """The last pose, and the velocity since the one before. A lost frame moves neither."""

    def __init__(self, gap: float, refine: bool) -> None:
        """gap: seconds without a pose after which velocity says nothing. refine: expect the motion that the frames' own
        poses tell, instead of constant velocity."""
        self.refine = refine
        self.last: tuple[float, np.ndarray] | None = None  # seconds, T_world_camera
        self.velocity: np.ndarray | None = None  # (6,) twist a second, camera frame
        self._earlier: np.ndarray | None = None  # that of the step before
        self._least_gap = gap
        self._given: np.ndarray | None = None  # the data set's pose of the last frame
        self._index = 0  # of the last frame
        self._interval = 0.0  # seconds between the last two frames
        self._time_warned = False

    @property
    def gap(self) -> float:
        """Seconds that are a gap: far more than between the last frames, whatever their rate."""
        return max(self._least_gap, 3 * self._interval)

    def is_gap(self, frame: Frame) -> bool:
        """Whether the time from the last pose to a frame is one."""
        return self.last is not None and abs(frame.timestamp - self.last[0]) > self.gap

    def expected(self, frame: Frame, lost: bool) -> np.ndarray:
        """T_world_camera (4, 4) where a frame after the last pose is expected.

        At constant velocity since the last two poses; the last pose itself where time stands still, or jumps, or the
        camera was lost: velocity says nothing there. With `refine`, the last pose moved as the frames' own poses move.
        """
        assert self.last is not None
        time, T = self.last
        if self.refine and frame.T_world_camera is not None and self._given is not None:
            return T @ poses.inverse(self._given) @ frame.T_world_camera
        elapsed = frame.timestamp - time
        if self.velocity is None or lost or not 0 < abs(elapsed) <= self.gap:
            return T
        return T @ poses.exp(self.velocity * elapsed)

    def steady_velocity(self, frame: Frame) -> np.ndarray | None:
        """(6,) twist a second, camera frame, over the last two steps, for a frame after the last pose; None where that
        says nothing.

        One step alone lets errors grow where a frame is changed by it: a wrong pose changes the next one.
        """
        known = [velocity for velocity in (self._earlier, self.velocity) if velocity is not None]
        if self.velocity is None or self.last is None or not 0 < frame.timestamp - self.last[0] <= self.gap:
            return None
        return np.mean(known, axis=0)

    def moved_to(self, frame: Frame, T_world_camera: np.ndarray, lost: bool) -> None:
        """Accept a frame's pose; the next prediction starts there. lost: the frame before had none."""
        self._earlier, self.velocity = self.velocity, None
        if self.last is not None and not lost:
            elapsed = frame.timestamp - self.last[0]
            if elapsed <= 0 and not self._time_warned:
                self._time_warned = True
                logger.warning(
                    "time goes from %.3f to %.3f s: frames are doubled or unsorted", self.last[0], frame.timestamp
                )
            if 0 < abs(elapsed) <= self.gap:  # back in time, too: frames may come in any order
                self.velocity = poses.log(poses.inverse(self.last[1]) @ T_world_camera) / elapsed
            self._interval = abs(elapsed)
        self.last, self._given, self._index = (frame.timestamp, T_world_camera), frame.T_world_camera, frame.index

    def corrected(self, correction: Correction, T_world_camera: np.ndarray) -> np.ndarray:
        """A pose of the last frame, or shortly before it, after the map was deformed."""
        return poses.orthonormalized(correction.corrected([self._index], T_world_camera[None])[0])

    def world_moved(self, correction: Correction) -> None:
        """The last pose follows the map."""
        if self.last is not None:
            time, T = self.last
            self.last = time, self.corrected(correction, T)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        none = np.full((4, 4), np.nan)
        time, T = self.last if self.last is not None else (np.nan, none)
        return {
            "time": np.array(time),
            "pose": T,
            "given": none if self._given is None else self._given,
            "velocity": np.full(6, np.nan) if self.velocity is None else self.velocity,
            "earlier": np.full(6, np.nan) if self._earlier is None else self._earlier,
            "interval": np.array(self._interval),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        time = float(state["time"])
        self.last = None if np.isnan(time) else (time, state["pose"])
        self._given = None if np.isnan(state["given"]).any() else state["given"]
        self.velocity = None if np.isnan(state["velocity"]).any() else state["velocity"]
        self._earlier = None if np.isnan(state["earlier"]).any() else state["earlier"]
        self._interval = float(state["interval"])
