"""A recording in a far world, such as UTM coordinates, as one near the origin: single precision keeps its digits."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np

from semslam.frame import Frame
from semslam.poses import moved_by
from sequences.sequence import DerivedSequence, Mesh, Sequence

FAR = 1000.0  # metres along an axis: beyond it float32 is coarser than a tenth of a millimetre
GRID = 100.0  # metres: of the places that are taken as origins


def far_origin(places: Iterable[np.ndarray | None]) -> np.ndarray:
    """(3,) float64 metres: a round place near the first of poses (4, 4) or points (3,) if that is far away, else 0."""
    first = next((place for place in places if place is not None), np.zeros(3))
    first = first[:3, 3] if first.ndim == 2 else first
    return np.round(first / GRID) * GRID if np.abs(first).max() > FAR else np.zeros(3)


def near_origin(sequence: Sequence) -> Sequence:
    """The sequence with poses relative to its `far_origin`; itself where that is 0."""
    poses = sequence.poses or ()
    origin = far_origin(poses)
    return RebasedSequence(sequence, poses, origin) if origin.any() else sequence


class RebasedSequence(DerivedSequence):
    """Another sequence with poses of its own, whose world has its origin at `world_origin`."""

    def __init__(self, whole: Sequence, poses: Iterable[np.ndarray | None], world_origin: np.ndarray) -> None:
        """poses: T_world_camera (4, 4) a frame, before `world_origin`, (3,) metres, is taken off."""
        super().__init__(whole)
        self.world_origin = world_origin
        if world_origin.any():
            place = ", ".join(f"{value:.0f}" for value in world_origin)
            self.assumptions += (f"coordinates are kept relative to ({place}) m: the poses are far away",)
        self.poses = tuple(None if T is None else moved_by(T, -world_origin) for T in poses)

    def _changed(self, frame: Frame, index: int) -> Frame:
        return replace(frame, T_world_camera=self.poses[index] if self.poses else None)

    def mesh(self) -> Mesh | None:
        mesh = self.whole.mesh()
        return mesh and mesh._replace(vertices=(mesh.vertices - self.world_origin).astype(np.float32))


def with_poses(sequence: Sequence, T_world_camera: Iterable[np.ndarray | None]) -> Sequence:
    """The sequence with other poses (4, 4), relative to the origin that its own ones are relative to."""
    if not isinstance(sequence, RebasedSequence):
        return RebasedSequence(sequence, T_world_camera, np.zeros(3))
    other = copy.copy(sequence)
    other.poses = tuple(T_world_camera)
    return other


def without_poses(sequence: Sequence, frames: Collection[int]) -> Sequence:
    """The sequence without the poses of some frames; itself where these are none."""
    if not frames:
        return sequence
    return with_poses(sequence, (None if i in frames else T for i, T in enumerate(sequence.poses or ())))
