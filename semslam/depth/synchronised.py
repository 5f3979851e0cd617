"""Depth that was measured a little before or after its colour image, moved to that image's moment.

Colour and depth cameras rarely share a trigger: a Kinect's images are up to 17 ms apart, in which a camera in a hand
goes some millimetres, and what it sees some pixels. Without this, tracking has to agree with two moments at one pose.
"""

from __future__ import annotations

from dataclasses import replace

import numba as nb
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.compiled import PARALLEL, Pinhole, f32
from semslam.frame import Observation, Tracking
from semslam.stage import Stage
from semslam.trajectory import Correction

LONGEST = 0.25  # seconds over which a velocity holds
SAME = f32(1e-4)  # of a depth: the search ends
AGREES = f32(0.05)  # of a depth: a pixel comes from the surface that it was looked for on, and from no other
STEPS = 3  # of the search for the pixel that a moved one comes from


class Synchroniser(Stage):
    """Moves each frame's depth to the moment of its colour image; for `Slam`'s `correct`.

    The camera is taken to go on as between the last three poses. The last two alone would let errors grow where depth
    is most of a frame later than colour: a pose that is wrong moves the next depth, and that the next pose. Where there
    are no such poses, at the beginning, after a gap or a lost camera, depth stays as it is.
    """

    def __init__(self) -> None:
        self._index, self._time = 0, np.nan  # of the present frame; seconds
        self._last: tuple[float, np.ndarray] | None = None  # seconds, T_world_camera
        self._velocities: list[np.ndarray] = []  # of the last two steps, (6,) twists a second, camera frame

    def __call__(self, observation: Observation, predict: object) -> Observation:
        frame = observation.frame
        self._index, self._time = frame.index, frame.timestamp
        if not frame.depth_delay or not self._velocities or not self._is_next(abs(frame.depth_delay)):
            return observation
        T_color_depth = poses.exp(np.mean(self._velocities, 0) * frame.depth_delay)
        return replace(observation, depth=moved(observation.depth, observation.camera, T_color_depth))

    def tracked(self, tracking: Tracking) -> None:
        T = tracking.T_world_camera
        if not (tracking.ok and self._is_next()):
            self._velocities = []
        elif self._last is not None:
            time, T_last = self._last
            new = poses.log(poses.inverse(T_last) @ T) / (self._time - time)
            self._velocities = [*self._velocities[-1:], new]
        self._last = (self._time, T) if tracking.ok else None

    def _is_next(self, delay: float = 0.0) -> bool:
        """Whether the present frame comes soon after the last pose, and later than by the delay of its depth."""
        return self._last is not None and delay < self._time - self._last[0] <= LONGEST

    def world_moved(self, correction: Correction) -> None:
        if self._last is not None:
            time, T = self._last
            self._last = time, poses.orthonormalized(correction.corrected([self._index], T[None])[0])

    def state(self) -> dict[str, np.ndarray]:
        time, T = self._last if self._last is not None else (np.nan, np.eye(4))
        return {"time": np.array(time), "pose": T, "velocities": np.reshape(self._velocities, (-1, 6))}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        time = float(state["time"])
        self._last = None if np.isnan(time) else (time, state["pose"])
        self._velocities = list(state["velocities"])


def moved(depth: np.ndarray, camera: Camera, T_new_old: np.ndarray) -> np.ndarray:
    """Depth (H, W) in metres as the same camera would have measured it from close by, T_new_old (4, 4) away.

    Each pixel takes the measurement that comes to lie in it, found by following its own depth back, again and again.
    Pixels that nothing comes to from the surface that was followed are 0.
    """
    with np.errstate(divide="ignore"):
        inverse = np.where(depth > 0, 1 / depth, f32(0))
    out = np.zeros_like(depth)
    _move(inverse, Pinhole.of(camera), poses.inverse(T_new_old).astype(f32), T_new_old.astype(f32), out)
    return out


@nb.njit(**PARALLEL)
def _move(inverse, camera, T_old_new, T_new_old, out):
    height, width = inverse.shape
    for row in nb.prange(height):
        y = (f32(row) - camera.cy) / camera.fy
        guess = f32(0.0)  # of a pixel without depth: that of the last one in its row
        for column in range(width):
            if inverse[row, column] > 0:
                guess = inverse[row, column]
            if guess > 0:
                x = (f32(column) - camera.cx) / camera.fx
                out[row, column] = _come_to(inverse, camera, T_old_new, T_new_old, x, y, guess)


@nb.njit(inline="always")
def _come_to(inverse, camera, T_old_new, T_new_old, x, y, guess):
    """The depth that comes to the ray (x, y, 1), searched from a guess of its inverse; 0 for none."""
    found, last = guess, f32(0.0)
    for _ in range(STEPS):
        depth = _along(T_old_new, 2, x, y, found)
        if depth <= 0:
            return f32(0.0)
        x_old, y_old = _along(T_old_new, 0, x, y, found) / depth, _along(T_old_new, 1, x, y, found) / depth
        old = _between(inverse, camera.fx * x_old + camera.cx, camera.fy * y_old + camera.cy)
        if old <= 0:
            return f32(0.0)
        last, found = found, old / _along(T_new_old, 2, x_old, y_old, old)
        if abs(found - last) < SAME * last:
            break
    return 1 / found if abs(found - last) <= AGREES * last else f32(0.0)


@nb.njit(inline="always")
def _along(T, row, x, y, inverse):
    """A coordinate of the point on the ray (x, y, 1) after a motion, times the inverse of its depth before."""
    return T[row, 0] * x + T[row, 1] * y + T[row, 2] + T[row, 3] * inverse


@nb.njit(inline="always")
def _between(inverse, u, v):
    """Inverse depth between four pixels of one surface, on whose plane it is linear; elsewhere the nearest pixel's.

    The nearest one everywhere would leave an image as it is that moves by less than half a pixel.
    """
    height, width = inverse.shape
    if not (f32(-0.5) <= u < width - f32(0.5) and f32(-0.5) <= v < height - f32(0.5)):
        return f32(0.0)
    left, top = min(max(int(u), 0), width - 2), min(max(int(v), 0), height - 2)
    a, b, c, d = inverse[top, left], inverse[top, left + 1], inverse[top + 1, left], inverse[top + 1, left + 1]
    least, most = min(min(a, b), min(c, d)), max(max(a, b), max(c, d))
    if most - least > AGREES * most or least <= 0:
        return inverse[min(int(v + f32(0.5)), height - 1), min(int(u + f32(0.5)), width - 1)]
    right, down = u - f32(left), v - f32(top)
    upper, lower = a + right * (b - a), c + right * (d - c)
    return upper + down * (lower - upper)
