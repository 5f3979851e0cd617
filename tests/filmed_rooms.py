"""The room as a plain camera films it, for tests of tracking by colour alone."""

from __future__ import annotations

import numpy as np

from semslam.metrics.trajectory import absolute_error
from semslam.runs.color_only.poses import VisualPoses
from semslam.trajectory import Trajectory

ROOM = "room:frames=60,width=320,height=240"


class Changed:
    """A sequence whose frames are others'."""

    ahead = 2

    def __init__(self, sequence, frames) -> None:
        self.name, self.camera, self.poses, self.frames = "changed", sequence.camera, None, frames
        self.timestamps = np.arange(len(frames)) / 30.0

    def __len__(self) -> int:
        return len(self.frames)

    def numbers(self, start=0):
        return range(start, len(self))

    @property
    def origin(self):
        return self, np.arange(len(self))

    def number_of(self, index: int) -> int:
        return index

    def color_of(self, index: int):
        return self.frames[index].color

    def recorded_image(self, index: int):
        return None


def error(room, found: VisualPoses, with_scale: bool) -> float:
    """Metres of the found positions from the room's, after an alignment."""
    ok = found.found
    estimate = Trajectory(room.timestamps[ok], found.T_world_camera[ok])
    return absolute_error(estimate, room.trajectory, with_scale=with_scale).rmse
