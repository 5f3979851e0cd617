"""Which part of the map a frame's pose is in: a camera that was lost for long begins one of its own."""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from semslam.tracking.relocalisation.keyframes import Keyframes

APART = 100.0  # metres between the worlds of sub-maps, along x, besides what they span: nobody sees so far
FARTHEST = 5_000.0  # metres from the origin at which no further sub-map begins


class SubMaps:
    """The numbers of the sub-maps that frames are in, by the frames with which it changes."""

    def __init__(self) -> None:
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
        T[0, 3] = max(float(pose[0, 3]) for pose in keyframes.T_world_camera) + APART
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
