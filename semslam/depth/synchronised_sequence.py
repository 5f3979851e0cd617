"""A recording whose depth is as if each image had been taken at one moment, by poses that are known."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import replace

import numpy as np

from semslam import poses
from semslam.depth.synchronised import synchronised
from semslam.frame import Frame
from sequences.sequence import DerivedSequence, Sequence


def synchronised_by(sequence: Sequence, T_world_camera: Many[np.ndarray | None], readout: float | None) -> Sequence:
    """The sequence, synchronised by poses where its depth is of several moments; see `SynchronisedSequence`."""
    if not sequence.has_depth or not (readout or np.any(sequence.depth_delays)):
        return sequence
    return SynchronisedSequence(sequence, T_world_camera, readout or 0.0)


class SynchronisedSequence(DerivedSequence):
    """Another sequence's frames, the rows of depth moved to the moment of colour's middle one; see `synchronised`."""

    def __init__(self, whole: Sequence, T_world_camera: Many[np.ndarray | None], readout: float) -> None:
        """T_world_camera: (4, 4) of each frame, None where it is not known. readout: seconds from the first row of an
        image to its last."""
        super().__init__(whole)
        self.depth_delays, self.readout = None, 0.0
        self._T_world_camera, self._readout = T_world_camera, readout

    def synchronised(self, frame: Frame) -> Frame:
        """A frame of the other sequence as it is in this one."""
        return replace(frame, depth=self._moved(frame.depth, frame.index), depth_delay=0.0)

    def _changed(self, frame: Frame, index: int) -> Frame:
        return self.synchronised(frame)

    def depth_of(self, index: int) -> np.ndarray | None:
        return self._moved(super().depth_of(index), index)

    def _moved(self, depth: np.ndarray | None, index: int) -> np.ndarray | None:
        delay = 0.0 if self.whole.depth_delays is None else float(self.whole.depth_delays[index])
        if depth is None or not (delay or self._readout) or (velocity := self.velocity(index)) is None:
            return depth
        return synchronised(depth, self.camera, velocity, delay, self._readout)

    def velocity(self, index: int) -> np.ndarray | None:
        """The camera's twist a second (6,) at a frame, in its own frame, between the poses around it; None without."""
        return poses.velocity(self._T_world_camera, self.timestamps, index)
