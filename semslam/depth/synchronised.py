"""Depth as if all its rows had been taken at one moment: that of its colour image's middle row.

Colour and depth cameras rarely share a trigger: a Kinect's images are up to 17 ms apart. And many cameras read an image
row by row (a rolling shutter), which takes a Kinect nearly the time of a frame. Meanwhile a camera in a hand goes some
millimetres. Without this, tracking has to agree with several moments at one pose (Kerl et al., "Dense continuous-time
tracking and mapping with rolling shutter RGB-D cameras", ICCV 2015). Colour stays as it is: it says far less of where
the camera is, and moving it as well gained nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numba as nb
import numpy as np

from semslam.camera import Camera
from semslam.compiled import PARALLEL, Pinhole, f32
from semslam.frame import Frame, Observation

LEAST = 0.2  # pixels; what moves by less stays as it is
MOST = 0.05, np.radians(5)  # metres and radians that the camera moves from a row to the frame's moment; more is a jump
AGREES = f32(0.05)  # of a depth: a pixel comes from the surface that it was looked for on, and from no other


class Synchroniser:
    """Moves the rows of each frame's depth to one moment before it is tracked; for `Slam`'s `correct`.

    Depth stays as it is where nothing is known of the camera's motion: at the beginning, after a gap, while lost.
    """

    def __init__(self, velocity_at: Callable[[Frame], np.ndarray | None], readout: float = 0.0) -> None:
        """velocity_at: the camera's twist a second (6,) at a frame, in its own frame; None where it is not known.
        readout: seconds from the first row of an image to the last one."""
        self.velocity_at, self.readout = velocity_at, readout

    def __call__(self, observation: Observation, predict: object) -> Observation:
        frame = observation.frame
        if not (frame.depth_delay or self.readout) or (velocity := self.velocity_at(frame)) is None:
            return observation
        depth = synchronised(observation.depth, observation.camera, velocity, frame.depth_delay, self.readout)
        return replace(observation, depth=depth)


def synchronised(
    depth: np.ndarray, camera: Camera, velocity: np.ndarray, delay: float, readout: float = 0.0
) -> np.ndarray:
    """Depth (H, W) in metres, 0 = none, as it would have been measured at one moment.

    velocity: (6,) twist a second of the camera, in its own frame. delay: seconds from that moment to the image's middle
    row. readout: seconds from the image's first row to its last.

    Each pixel takes what comes to lie in it, which its own depth tells, to first order in time. Pixels that nothing
    comes to from the surface that was followed have no depth. All stays as it is where the camera would have jumped.
    """
    away = abs(delay) + readout / 2
    if max(np.linalg.norm(velocity[:3]) * away / MOST[0], np.linalg.norm(velocity[3:]) * away / MOST[1]) > 1:
        return depth
    depth = np.ascontiguousarray(depth)
    out = np.empty_like(depth)
    _synchronise(depth, Pinhole.of(camera), velocity.astype(f32), f32(delay), f32(readout), f32(LEAST), out)
    return out


@nb.njit(**PARALLEL)
def _synchronise(depth, camera, twist, delay, readout, least, out):
    height, width = depth.shape
    flat = depth.reshape(-1)
    for row_ in nb.prange(height):
        row = np.int64(row_)  # prange counts unsigned
        elapsed = delay + (f32(row) / f32(max(height - 1, 1)) - f32(0.5)) * readout
        y = (f32(row) - camera.cy) / camera.fy
        here, there, inverses = depth[row], out[row], np.empty(width, np.float32)
        for column in range(width):
            inverses[column] = f32(1) / here[column] if here[column] > 0 else f32(0)
        last = f32(0)  # of a pixel's depth, or of the last one that had any
        for column in range(width):
            last = inverses[column] if inverses[column] > 0 else last
            inverses[column] = last
        us, vs, nearer = np.empty(width, np.float32), np.empty(width, np.float32), np.empty(width, np.float32)
        corners, moves = np.empty(width, np.int32), np.empty(width, np.uint8)
        some = 0
        # where most time goes, loops without branches, which run over whole vectors, and one that only looks up
        for column in range(width):
            x = (f32(column) - camera.cx) / camera.fx
            du, dv, dz = _flow(camera, twist, x, y, inverses[column])
            u, v = f32(column) + elapsed * du, f32(row) + elapsed * dv
            us[column], vs[column], nearer[column] = u, v, f32(1) + elapsed * dz
            corners[column] = _before(v, height) * np.int32(width) + _before(u, width)
            stays = max(abs(du), abs(dv)) * abs(elapsed) < least
            moves[column] = np.uint8(0) if stays else np.uint8(1)
            some += np.int64(not stays)
        there[:] = here
        if some == 0:
            continue
        a, b = np.empty(width, np.float32), np.empty(width, np.float32)
        c, d = np.empty(width, np.float32), np.empty(width, np.float32)
        for column in range(width):
            a[column], b[column], c[column], d[column] = _corners(flat, corners[column], width, height)
        for column in range(width):
            u, v = us[column], vs[column]
            found = _between(a[column], b[column], c[column], d[column], u, v, width, height) * nearer[column]
            other = (found > 0) & ~(abs(found * inverses[column] - f32(1)) <= AGREES)
            there[column] = found if moves[column] else here[column]
            moves[column] = moves[column] if other else np.uint8(0)
        for column in range(width):
            if not moves[column]:
                continue
            # perhaps the surface behind, or before
            x, inverse = (f32(column) - camera.cx) / camera.fx, f32(1) / there[column]
            du, dv, dz = _flow(camera, twist, x, y, inverse)
            u, v = f32(column) + elapsed * du, f32(row) + elapsed * dv
            a_, b_, c_, d_ = _corners(flat, _before(v, height) * np.int32(width) + _before(u, width), width, height)
            found = _between(a_, b_, c_, d_, u, v, width, height) * (f32(1) + elapsed * dz)
            there[column] = found if abs(found * inverse - f32(1)) <= AGREES else f32(0)


@nb.njit(inline="always")
def _flow(camera, twist, x, y, inverse):
    """How a pixel moves, (u, v) a second, and its depth, as a share a second of what it is: from then to now.

    x, y: of its ray (x, y, 1). inverse: of its depth; of what moves with it, X' = -(v + w x X).
    """
    a = twist[0] * inverse + twist[4] - twist[5] * y
    b = twist[1] * inverse + twist[5] * x - twist[3]
    c = twist[2] * inverse + twist[3] * y - twist[4] * x
    return camera.fx * (x * c - a), camera.fy * (y * c - b), c


@nb.njit(inline="always")
def _before(u, width):
    """The pixel before a place, of two that are in the image, even for a place that is not a number."""
    return np.int32(min(u if u > f32(0) else f32(0), f32(max(width - 2, 0))))


@nb.njit(inline="always")
def _corners(flat, corner, width, height):
    """Depth at four pixels, of which the first is `corner`: that one, to the right of it, and below these two."""
    right, down = np.uint64(min(width - 1, 1)), np.uint64(width * min(height - 1, 1))
    p = np.uint64(corner)
    return flat[p], flat[p + right], flat[p + down], flat[p + down + right]


@nb.njit(inline="always")
def _between(a, b, c, d, u, v, width, height):
    """Depth at a place between four pixels of one surface, see `_corners`; elsewhere the nearest pixel's; 0 outside.

    The nearest one everywhere would leave an image as it is that moves by less than half a pixel.
    """
    inside = (f32(-0.5) <= u) & (u < f32(width) - f32(0.5)) & (f32(-0.5) <= v) & (v < f32(height) - f32(0.5))
    across, along = u - f32(_before(u, width)), v - f32(_before(v, height))
    least, most = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
    upper, lower = a + across * (b - a), c + across * (d - c)
    one = (least > 0) & (most - least <= AGREES * least)
    nearest = (d if across >= f32(0.5) else c) if along >= f32(0.5) else (b if across >= f32(0.5) else a)
    return (upper + along * (lower - upper) if one else nearest) if inside else f32(0)
