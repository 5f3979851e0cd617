"""Which part of the map a frame's pose is in: a camera that was lost for long begins one of its own."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping

import numpy as np

from semslam.tracking.relocalisation.keyframes import Keyframes

APART = 100.0  # metres between the worlds of sub-maps of rooms, along x, besides what they span: nobody sees so far
ROOM = 5.0  # metres that are seen of a room, at most
BOTH_WAYS = 2.4  # times the range of depth: two cameras that look at each other, and the margin of what a map shows
FARTHEST = 5_000.0  # metres from the origin at which no further sub-map begins
FEWEST_LOST = 5  # frames: so many at least are lost before a sub-map begins, however slow the recording
DENSE = 0.2  # of the pixels with depth: enough to begin a sub-map ...
USUAL = 0.5  # ... as is half of what the recording's frames have


class Absence:
    """How long a camera has been lost, and how much depth its frames had before."""

    def __init__(self) -> None:
        self.since: float | None = None  # seconds
        self.frames = 0  # lost since
        self._share = 0.0  # of pixels with depth, mean over the frames with a pose; 0 = there was none yet

    def lost(self, timestamp: float) -> None:
        """Count a frame without a pose."""
        self.since = timestamp if self.since is None else self.since
        self.frames += 1

    def ended(self, depth: np.ndarray) -> None:
        """A frame with depth (H, W) has a pose."""
        self.since, self.frames = None, 0
        self._share += (0.05 if self._share else 1.0) * (np.count_nonzero(depth > 0) / depth.size - self._share)

    def is_long(self, timestamp: float, seconds: float) -> bool:
        """Whether so many seconds, and some frames, are lost by the time of a frame."""
        return self.since is not None and self.frames >= FEWEST_LOST and timestamp - self.since >= seconds

    @property
    def enough(self) -> float:
        """Share of an image's pixels that have to have depth for it to begin a sub-map: lidars' images are sparse."""
        return min(DENSE, USUAL * self._share) if self._share else DENSE

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restore`."""
        since = np.array(np.nan if self.since is None else self.since)
        return {"lost_since": since, "lost_frames": np.array(self.frames), "depth_share": np.array(self._share)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a `state`, or from one that holds more."""
        since = float(state["lost_since"])
        self.since = None if np.isnan(since) else since
        self.frames, self._share = int(state["lost_frames"]), float(state["depth_share"])


class SubMaps:
    """The numbers of the sub-maps that frames are in, by the frames with which it changes."""

    def __init__(self) -> None:
        self.far = ROOM  # metres: the farthest depth that the map keeps
        self.changes: list[tuple[int, int]] = []  # the index of a frame, and the number from there on

    def of(self, index: int) -> int:
        """The number of the sub-map that the pose of a frame, from its index, is in."""
        k = bisect_right(self.changes, index, key=lambda entry: entry[0]) - 1
        return self.changes[max(k, 0)][1] if self.changes else 0

    @property
    def apart(self) -> bool:
        """Whether there are sub-maps that have not met."""
        return len({number for _, number in self.changes}) > 1

    @property
    def starts(self) -> list[int]:
        """The frames with which the sub-map changes."""
        return [index for index, _ in self.changes]

    def enter(self, index: int, number: int) -> None:
        """Note that the frames from this one on are in a sub-map."""
        if not self.changes or number != self.changes[-1][1]:
            self.changes.append((index, number))

    def nearest(self, T_world_camera: np.ndarray, keyframes: Keyframes) -> int:
        """The sub-map of the keyframe nearest to a pose."""
        if not len(keyframes):
            return 0
        positions = np.stack(keyframes.T_world_camera)[:, :3, 3]
        nearest = int(np.linalg.norm(positions - T_world_camera[:3, 3], axis=1).argmin())
        return self.of(keyframes.indices[nearest])

    def next(self, keyframes: Keyframes) -> tuple[int, np.ndarray] | None:
        """The number of a further sub-map, and the pose (4, 4) of its first frame; None where there is no more room.

        Its world begins far away from all others, so that nothing meets by accident what loops have not joined.
        """
        T = np.eye(4)
        T[0, 3] = max(float(pose[0, 3]) for pose in keyframes.T_world_camera)
        T[0, 3] += APART + BOTH_WAYS * max(self.far - ROOM, 0)
        if T[0, 3] > FARTHEST:
            return None
        return 1 + max(number for _, number in self.changes), T

    def join(self, gone: int, into: int) -> None:
        """The first is part of the second now."""
        self.changes = [(index, into if number == gone else number) for index, number in self.changes]

    def state(self) -> np.ndarray:
        """(N, 2) int64; for `restore`."""
        return np.array(self.changes, np.int64).reshape(-1, 2)

    def restore(self, state: np.ndarray) -> None:
        """Go on from a `state`."""
        self.changes = [(int(index), int(number)) for index, number in state]
