"""Poses that are less frequent than images, each held until the next one comes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from semslam import poses
from semslam.doctor import flow
from semslam.doctor.conventions import AS_RECORDED, flow_misfit
from sequences import Sequence as Recording
from sequences.rebased import with_poses

SAME = 1e-9  # between elements of poses that are the same
FEWEST_HELD = 5  # poses
USUAL_SHARE = 0.8  # of the poses: so many are held about as long as usual
LONGEST = 0.5  # seconds to the next pose, across which poses are interpolated
BETTER = 0.9  # of the misfit of held poses: what interpolated ones must reach


def released(recording: Recording) -> Recording:
    """A recording whose held poses are those of a moving camera: each that is repeated is interpolated to the next.

    Held poses are told by their numbers, and that the camera moves meanwhile by its images: without depth or texture
    the recording is returned as it is. After the last new pose there is none.
    """
    T_world_camera = recording.poses or ()
    moving, usual = interpolated(T_world_camera, recording.timestamps)
    if not usual or not recording.has_depth:
        return recording
    other = copy.copy(recording)
    other.poses = tuple(held if T is None else T for T, held in zip(moving, T_world_camera))
    tracks = flow.stretches(recording)
    if len(tracks) < flow.FEWEST_STRETCHES:
        return recording
    as_held, as_moving = (flow_misfit(of, tracks, AS_RECORDED) for of in (recording, other))
    if not as_moving < BETTER * as_held:
        return recording
    other = with_poses(recording, moving)
    note = f"each pose is repeated over about {usual} images; those between are interpolated (`reject_poses`)"
    other.assumptions = (*other.assumptions, note)
    return other


def interpolated(
    T_world_camera: Sequence[np.ndarray | None], timestamps: np.ndarray
) -> tuple[list[np.ndarray | None], int]:
    """Poses (4, 4) interpolated from each first one of a group of the same to the next group's, and how large these
    groups usually are; the poses themselves and 0 where there are no such groups. timestamps: (N,) seconds."""
    every = list(T_world_camera)
    new = [i for i, T in enumerate(every) if T is not None and (i == 0 or not _same(every[i - 1], T))]
    sizes = np.diff(new)
    usual = int(np.median(sizes)) if len(sizes) >= FEWEST_HELD else 0
    if usual < 2 or np.mean(np.abs(sizes - usual) <= 1) < USUAL_SHARE:
        return every, 0
    for a, b in pairwise([*new, len(every)]):
        ahead = every[b] if b < len(every) else None
        seconds = timestamps[b] - timestamps[a] if b < len(every) else np.inf
        for i in range(a + 1, b):
            fraction = float((timestamps[i] - timestamps[a]) / seconds) if 0 < seconds <= LONGEST else None
            before = every[a]
            known = fraction is not None and before is not None and ahead is not None and every[i] is not None
            every[i] = poses.interpolate(before, ahead, fraction) if known else None  # type: ignore[arg-type]
    return every, usual


def _same(a: np.ndarray | None, b: np.ndarray) -> bool:
    return a is not None and bool(np.abs(a - b).max() < SAME)
