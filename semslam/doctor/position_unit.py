"""In which unit the positions of a recording's poses are, where its images leave no doubt."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

from semslam.doctor import flow
from semslam.frame import evenly_spread
from semslam.poses import from_rotation_translation, inverse
from sequences import Sequence as Recording

UNITS = {1e-3: "millimetres", 1e-2: "centimetres"}  # metres in a unit
FAR_MOVED = 0.3  # of the usual depth, in a stretch of frames: what moves less is in metres, or near enough to tell late
CLEARLY = 0.1  # of the misfit in metres: what another unit must reach
FRAMES = 3  # whose depth is looked at


def metres_in_a_unit(recording: Recording, T_world_camera: Sequence[np.ndarray | None] | None = None) -> float:
    """0.001 or 0.01 where the images fit positions in millimetres or centimetres and do not fit metres; else 1.

    The same points, followed through the images, decide as in `semslam doctor`; they are looked for only where the
    camera seems to move a good part of the depth that it sees within a few frames. 1 without poses or depth.
    T_world_camera: (4, 4) a frame, None for those without; by default the recording's.
    """
    view = copy.copy(recording)
    view.poses = recording.poses if T_world_camera is None else tuple(T_world_camera)
    if not view.has_poses or not view.has_depth:
        return 1.0
    depth = _usual_depth(view)
    if depth is None or _moved(view.poses or ()) < FAR_MOVED * depth:
        return 1.0
    tracks = [t for t in flow.stretches(view, flow.FEWEST_STRETCHES + 1) if _posed(view, t)]
    if len(tracks) < flow.FEWEST_STRETCHES:
        return 1.0

    def misfit(unit: float) -> float:
        return float(np.median([t.residual(view.camera, _motion(view, t, unit)) for t in tracks]))

    as_metres = misfit(1.0)
    if as_metres < flow.notable(view.camera):
        return 1.0
    best = min(UNITS, key=misfit)
    return best if misfit(best) < min(CLEARLY * as_metres, 4 * flow.notable(view.camera)) else 1.0


def in_metres(T_world_camera: Sequence[np.ndarray | None], unit: float) -> list[np.ndarray | None]:
    """Poses (4, 4) whose positions count so many metres a unit, in metres."""
    return [None if T is None else from_rotation_translation(T[:3, :3], unit * T[:3, 3]) for T in T_world_camera]


def _posed(view: Recording, tracks: flow.Tracks) -> bool:
    poses = view.poses or ()
    return poses[tracks.first] is not None and poses[tracks.last] is not None


def _motion(view: Recording, tracks: flow.Tracks, unit: float) -> np.ndarray:
    """T_last_first (4, 4), metres."""
    T_world_first, T_world_last = (view.poses or ())[tracks.first], (view.poses or ())[tracks.last]
    assert T_world_first is not None and T_world_last is not None
    T = inverse(T_world_last) @ T_world_first
    return from_rotation_translation(T[:3, :3], unit * T[:3, 3])


def _moved(poses: Sequence[np.ndarray | None]) -> float:
    """Recorded units that the camera moves within a stretch of frames, where it moves much."""
    pairs = zip(poses, poses[flow.STRETCH :])
    away = [float(np.linalg.norm(b[:3, 3] - a[:3, 3])) for a, b in pairs if a is not None and b is not None]
    return float(np.percentile(away, 90)) if away else 0.0


def _usual_depth(view: Recording) -> float | None:
    """Metres, the median of a few frames; None where they have none that can be read."""
    frames = (view.readable(i) for i in evenly_spread(range(len(view)), FRAMES))
    depth = [f.depth[f.depth > 0][::50] for f in frames if f is not None and f.depth is not None]
    valid = np.concatenate(depth) if depth else np.zeros(0)
    return float(np.median(valid)) if len(valid) else None
