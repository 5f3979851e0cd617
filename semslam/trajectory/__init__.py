"""Trajectories: where the camera was, what corrects that, and which times of two of them belong together.

In memory a trajectory is camera-to-world. `semslam.trajectory.files` reads and writes the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from semslam import poses

Clock = Literal["seconds", "numbers", "lines"]
FARTHEST = 1e9  # metres from the origin: a hundred times the size of the earth is no place, but a broken number
NOT_RIGID = 0.01  # by which a rotation may miss orthonormality: text files round to a few digits
GAP = 2.5  # times the usual time from one pose to the next


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where the camera was, and when. Timestamps increase strictly."""

    timestamps: np.ndarray  # (N,) float64 seconds, or what the clock says
    T_world_camera: np.ndarray  # (N, 4, 4) float64
    clock: Clock = "seconds"  # what timestamps count: frame numbers that the file carries, or its poses from 0
    lines: int | None = None  # of clock "lines": how many frames the file counts, those without a pose included

    def __post_init__(self) -> None:
        for name in ("timestamps", "T_world_camera"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        times, T = self.timestamps, self.T_world_camera
        if times.ndim != 1 or T.shape != (len(times), 4, 4):
            raise ValueError(f"a trajectory has times {times.shape} and poses {T.shape}, expected (N,) and (N, 4, 4)")
        if not (np.all(np.isfinite(self.timestamps)) and np.all(np.isfinite(self.T_world_camera))):
            raise ValueError("trajectory holds NaN or infinite numbers; leave frames without a pose out of it")
        if len(self) and np.abs(self.positions).max() > FARTHEST:
            raise ValueError(
                f"a position of the trajectory is {np.abs(self.positions).max():.3g} m from the origin; expected metres"
            )
        if not (rigid := poses.are_rigid(T, NOT_RIGID)).all():
            raise ValueError(
                f"pose {int(np.argmin(rigid))} of the trajectory is not rigid; expected a rotation and a translation, "
                f"world from camera, in the last column"
            )
        if np.any(np.diff(self.timestamps) <= 0):
            at = int(np.argmax(np.diff(self.timestamps) <= 0)) + 1
            raise ValueError(
                f"timestamps must increase, but pose {at} at {self.timestamps[at]:.6f} s follows "
                f"{self.timestamps[at - 1]:.6f} s; sort the poses and drop duplicates"
            )

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def positions(self) -> np.ndarray:
        """(N, 3) float64 camera centres in the world, metres."""
        return self.T_world_camera[:, :3, 3]

    @property
    def length(self) -> float:
        """Metres along the camera centres."""
        return float(np.linalg.norm(np.diff(self.positions, axis=0), axis=1).sum())

    def pieces(self) -> list[np.ndarray]:
        """The poses (N, 4, 4) of each stretch without a gap, which is a step of more than GAP times the usual one."""
        steps = np.diff(self.timestamps)
        usual = np.median(steps) if len(steps) else 0.0
        return np.split(self.T_world_camera, np.flatnonzero(steps > GAP * usual) + 1)

    def at(self, timestamp: float, max_gap: float = np.inf) -> np.ndarray | None:
        """The pose (4, 4) at a time, interpolated along the screw between its neighbours.

        None outside the trajectory, or where the neighbours lie more than `max_gap` seconds apart.
        """
        after = int(np.searchsorted(self.timestamps, timestamp))
        if after < len(self) and self.timestamps[after] == timestamp:
            return self.T_world_camera[after].copy()
        if after == 0 or after == len(self):
            return None
        t_0, t_1 = self.timestamps[after - 1 : after + 1]
        if t_1 - t_0 > max_gap:
            return None
        fraction = float((timestamp - t_0) / (t_1 - t_0))
        return poses.interpolate(self.T_world_camera[after - 1], self.T_world_camera[after], fraction)

    def selected(self, keep: np.ndarray) -> Trajectory:
        """The poses that a mask or an increasing index array keeps."""
        return replace(self, timestamps=self.timestamps[keep], T_world_camera=self.T_world_camera[keep])


@dataclass(frozen=True, eq=False)
class Correction:
    """How the world moved, by time: T_new_old at keyframes, interpolated between them."""

    indices: np.ndarray  # (K,) increasing frame indices
    T_new_old: np.ndarray  # (K, 4, 4)
    joined: tuple[int, int] | None = None  # sub-maps that have met: the first is now part of the second

    @staticmethod
    def between(
        indices: Sequence[int] | np.ndarray, old: np.ndarray, new: np.ndarray, breaks: Sequence[int] = ()
    ) -> Correction:
        """That takes the old poses (K, 4, 4) of keyframes to the new ones; their frames may come in any order.

        breaks: frames with which sub-maps begin: those before move with the keyframe before, whatever comes after, and
        those from there on with the keyframe after.
        """
        frames, first = np.unique(np.asarray(indices), return_index=True)
        moved = new[first] @ poses.inverse(old[first])
        starts = np.asarray(breaks, np.int64)
        added = np.concatenate([starts - 1, starts])
        like = np.concatenate([np.searchsorted(frames, starts) - 1, np.searchsorted(frames, starts)])
        known = (like >= 0) & (like < len(frames)) & ~np.isin(added, frames)
        added, which = np.unique(added[known], return_index=True)
        like = like[known][which]
        order = np.argsort(np.concatenate([frames, added]), kind="stable")
        return Correction(np.concatenate([frames, added])[order], np.concatenate([moved, moved[like]])[order])

    def at(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """T_new_old (N, 4, 4) at frames; before the first and after the last keyframe, that one's."""
        if len(self.indices) == 1:
            return np.tile(self.T_new_old[0], (len(indices), 1, 1))
        times = np.clip(np.asarray(indices, np.float64), self.indices[0], self.indices[-1])
        result = np.tile(np.eye(4), (len(times), 1, 1))
        rotations = Rotation.from_matrix(self.T_new_old[:, :3, :3])
        # Corrections are small: turning and shifting apart from one another is as good as along a screw.
        result[:, :3, :3] = Slerp(self.indices, rotations)(times).as_matrix()
        for axis in range(3):
            result[:, axis, 3] = np.interp(times, self.indices, self.T_new_old[:, axis, 3])
        return result

    def corrected(self, indices: Sequence[int] | np.ndarray, T_world_camera: np.ndarray) -> np.ndarray:
        """The poses (N, 4, 4) of the frames with these indices, after the correction."""
        return self.at(indices) @ T_world_camera


def associate(times_a: np.ndarray, times_b: np.ndarray, max_difference: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """Index arrays (ia, ib) of the times that belong together: mutual nearest neighbours at most this far apart.

    Both inputs are sorted seconds; both outputs increase, and no time is used twice.
    """
    times_a, times_b = np.asarray(times_a, np.float64), np.asarray(times_b, np.float64)
    if len(times_a) == 0 or len(times_b) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    b_of_a, a_of_b = _nearest(times_a, times_b), _nearest(times_b, times_a)
    ia = np.arange(len(times_a))
    # A hair more than the limit: 0.12 - 0.10 is above 0.02 in binary.
    keep = (a_of_b[b_of_a] == ia) & (np.abs(times_a - times_b[b_of_a]) <= max_difference + 1e-9)
    return ia[keep], b_of_a[keep]


def _nearest(times: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each time the index of the nearest of `among` (sorted); the earlier one where two are as near."""
    right = np.clip(np.searchsorted(among, times), 1, len(among) - 1) if len(among) > 1 else np.zeros(len(times), int)
    left = np.maximum(right - 1, 0)
    return np.where(times - among[left] <= among[right] - times, left, right)
