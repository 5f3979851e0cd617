"""Poses that are less frequent than images: each is repeated until the next one comes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.doctor import flow
from semslam.doctor.guesses import AS_RECORDED, flow_misfit
from sequences import Sequence as Recording
from sequences.rebased import with_poses

SAME = 1e-9  # between elements of poses that are the same
FEWEST_GROUPS = 5  # of images with one pose
USUAL_SHARE = 0.8  # of the groups: so many have about the usual size
LONGEST = 0.5  # seconds to the next pose, across which poses are interpolated
BETTER = 0.9  # of the misfit of repeated poses: what interpolated ones must reach


class Repeats(NamedTuple):
    """When the poses of a recording were new that are repeated over several images each."""

    images: int  # that have one pose, usually
    group: np.ndarray  # (N,) number of the pose of each frame, in their order
    since: np.ndarray  # (N,) seconds at which the pose of each frame was new
    passing: np.ndarray  # (N,) bool: whether another one comes after the usual time

    @property
    def note(self) -> str:
        """The same in words."""
        return f"each pose is repeated over about {self.images} images while the camera moves"

    def interpolated(
        self, T_world_camera: Sequence[np.ndarray | None], timestamps: np.ndarray
    ) -> list[np.ndarray | None]:
        """Poses (4, 4) a frame, interpolated to the next one; timestamps: (N,) seconds.

        A pose that lasts longer than usual stays until the next one is due, since the camera may rest; so does the
        last one.
        """
        new = [0, *(np.flatnonzero(np.diff(self.group)) + 1).tolist()]
        between = list(T_world_camera)
        for a, b in pairwise(new):
            seconds = self.since[b] - self.since[a]
            first, ahead = T_world_camera[a], T_world_camera[b]
            if self.passing[a] and 0 < seconds <= LONGEST and first is not None and ahead is not None:
                for i in (i for i in range(a, b) if between[i] is not None):
                    between[i] = poses.interpolate(first, ahead, float((timestamps[i] - self.since[a]) / seconds))
        return between


def repeats(T_world_camera: Sequence[np.ndarray | None], timestamps: np.ndarray) -> Repeats | None:
    """The groups of frames with the same pose (4, 4), told by their numbers; None where most have no common size.

    timestamps: (N,) seconds.
    """
    same = (a is not None and b is not None and bool(np.abs(a - b).max() < SAME) for a, b in pairwise(T_world_camera))
    new = [0, *(i for i, repeated in enumerate(same, 1) if not repeated)]
    sizes = np.diff([*new, len(timestamps)])
    posed = np.array([T_world_camera[i] is not None for i in new[:-1]], bool)
    usual = int(np.median(sizes[:-1][posed])) if posed.sum() >= FEWEST_GROUPS else 1
    longer = sizes > usual + 1
    if usual < 2 or np.mean((np.abs(sizes - usual) <= 1)[:-1][posed]) < USUAL_SHARE:
        return None
    # a camera that rests has the same pose again and again, for the last time when the next one was due
    new = sorted({*new, *(b - usual for (_, b), stays in zip(pairwise(new), longer) if stays)})
    sizes = np.diff([*new, len(timestamps)])
    passing = np.abs(sizes - usual) <= 1
    passing[-1] = False
    return Repeats(usual, *(np.repeat(of_group, sizes) for of_group in (np.arange(len(new)), timestamps[new], passing)))


def repeats_of(recording: Recording) -> Repeats | None:
    """The same for the recorded poses; of a part of a recording, as the whole has them."""
    whole, numbers = recording.origin
    found = repeats(whole.poses or (), whole.timestamps)
    return found and Repeats(found.images, found.group[numbers], found.since[numbers], found.passing[numbers])


def interpolate_repeated_poses(recording: Recording, found: Repeats | None) -> Recording:
    """The recording with the poses of a moving camera; itself where its images do not tell that the camera moves."""
    if found is None or not recording.has_depth:
        return recording
    moving = with_poses(recording, found.interpolated(recording.poses or (), recording.timestamps))
    both = enumerate(zip(recording.poses or (), moving.poses or ()))
    changed = {i for i, (a, b) in both if a is not None and b is not None and not np.array_equal(a, b)}
    tracks = [t for t in flow.stretches(recording) if t.first in changed or t.last in changed]
    if len(tracks) < flow.FEWEST_STRETCHES:
        return recording
    repeated, interpolated = (flow_misfit(of, tracks, AS_RECORDED) for of in (recording, moving))
    return moving if interpolated < BETTER * repeated else recording
