"""What was there for a moment, such as a person who walked by, and is seen through at other times."""

from __future__ import annotations

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.frame import evenly_spread
from semslam.runs.run import Run

BRIEF = 4  # frames within which what passes by is seen
LOOKED_AT = 64  # frames, evenly spread, whose depth may lie behind it
TIMES = 2  # of those, at least, that see through what is removed
BEHIND = 0.05  # metres, and of the depth: so much farther is behind


def remove_passing(run: Run) -> int:
    """Remove the surfels of a map that two frames or more see through, of those that are the least sure and that were
    seen within `BRIEF` frames; returns how many.

    While a run goes on, what is measured behind a surfel takes from its confidence. That misses those from which the
    camera turned away at once: frames from before they were there tell of them.
    """
    surfels, rare = run.slam.surfels, run.slam.fusion.rare
    looked_at = evenly_spread(list(run.progress.fused_poses().items()), LOOKED_AT)

    def passed_by(part: np.ndarray) -> np.ndarray:
        first, last = surfels.seen[part, 0], surfels.seen[part, 1]
        gone = (surfels.normal[part, 3] < rare) & (first >= 0) & (last - first < BRIEF)  # of this run alone
        points, times = surfels.position[part[gone], :3].astype(np.float64), np.zeros(gone.sum(), int)
        for index, T in looked_at if len(points) else ():
            frame = run.frames.try_read(index)
            if frame is not None and frame.depth is not None:
                times += seen_through(points, frame.camera, T, frame.depth)
        gone[gone] = times >= TIMES
        return gone

    if removed := surfels.remove_where(passed_by):
        run.changed()
    return removed


def seen_through(points: np.ndarray, camera: Camera, T_world_camera: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Which points (N, 3) of the world lie clearly before what a camera measured in their pixel, (N,) bool.

    T_world_camera: (4, 4). depth: (H, W) metres, 0 = none.
    """
    x = poses.transform(poses.inverse(T_world_camera), points)
    z = np.maximum(x[:, 2], 1e-6)
    u = np.rint(camera.fx * x[:, 0] / z + camera.cx)
    v = np.rint(camera.fy * x[:, 1] / z + camera.cy)
    inside = (x[:, 2] > 0) & (u >= 0) & (v >= 0) & (u < depth.shape[1]) & (v < depth.shape[0])
    measured = np.zeros(len(points))
    measured[inside] = depth[v[inside].astype(int), u[inside].astype(int)]
    return measured > z + np.maximum(BEHIND, BEHIND * z)
