"""The noise of a depth camera, as its own recording tells it.

What is measured is the distance of a frame from the map after registration, by depth: the noise of the frame, and what
the map errs. Where to start from: `semslam.camera.SENSORS`.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from semslam.camera import FARTHER, depth_std
from semslam.compiled import SERIAL
from semslam.robust import MAD_TO_STD
from semslam.stage import prefixed, under_prefix
from semslam.tracking.registration.comparison import Comparison

EDGES = np.array([0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.6, 1.9, 2.2, 2.6, 3.0, 3.5, 4.0, *FARTHER])  # metres
FEWEST = 20  # residuals of a frame in a bin that say something
MEMORY = 50.0  # frames that the running mean spans
PRIOR = 5.0  # frames that the model of the sensor's kind is worth
BOUNDS = 0.5, 6.0  # times that model: what measurements may say


class NoiseEstimate:
    """The noise of one recording, measured as frames are registered.

    Starts as the model of a kind of sensor and follows what the residuals say, within bounds: a tracker that fails
    must not declare its failure to be noise.
    """

    def __init__(self, base: float, quadratic: float) -> None:
        """The model to start from: metres, and 1 / metre."""
        self.model = np.array([base, quadratic])
        self.values = self.model.copy()  # base, quadratic
        self._sigma = np.zeros(len(EDGES) - 1)  # metres: mean of the frames' standard deviations in a bin
        self._depth = np.zeros(len(EDGES) - 1)  # metres: mean of the depths that told
        self._frames = np.zeros(len(EDGES) - 1)  # that have told of the bin, at most MEMORY

    @property
    def model_now(self) -> tuple[float, float]:
        """Metres, and 1 / metre: the model as it is measured so far."""
        return float(self.values[0]), float(self.values[1])

    @property
    def measured(self) -> bool:
        """Whether any frame has told of it."""
        return bool(self._frames.any())

    def sigma(self, depth: np.ndarray) -> np.ndarray:
        """Standard deviation in metres at depths (N,), metres."""
        return depth_std(depth, *self.values)

    def learn(self, depth: np.ndarray, residual: np.ndarray) -> None:
        """Take in one frame's residuals (N,) to the map, metres, at depths (N,), metres."""
        count, sigma, middle = _medians(depth, np.abs(residual), EDGES)
        told = count >= FEWEST
        if told.any():
            # the median bears what does not fit
            sigma *= MAD_TO_STD
            self.values = _fitted(told, sigma, middle, (self._frames, self._sigma, self._depth), self.model)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on; for `restore`."""
        return {"values": self.values, "sigma": self._sigma, "depth": self._depth, "frames": self._frames}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.values, self._sigma = state["values"].copy(), state["sigma"].copy()
        self._depth, self._frames = state["depth"].copy(), state["frames"].copy()


class SensorNoise:
    """The two noises of a depth camera: along surfaces' normals, to register by, and of depth itself, to fuse by."""

    def __init__(self, base: float, quadratic: float) -> None:
        """The model to start from: metres, and 1 / metre."""
        self.along_normals = NoiseEstimate(base, quadratic)
        self.of_depth = NoiseEstimate(base, quadratic)

    def learn(self, comparison: Comparison) -> None:
        """Take in how one frame agrees with the map at its pose."""
        self.along_normals.learn(comparison.depth, comparison.residual)
        self.of_depth.learn(comparison.depth, comparison.along_ray)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on; for `restore`."""
        return prefixed("noise_", self.along_normals.state()) | prefixed("depth_noise_", self.of_depth.state())

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`, or from one that holds more."""
        self.along_normals.restore(under_prefix("noise_", state))
        self.of_depth.restore(under_prefix("depth_noise_", state))


@njit(**SERIAL)
def _medians(depth, distance, edges):
    """Of each bin of depth (N,): how many there are, their median distance and the depth where it is."""
    bins = np.searchsorted(edges, depth, side="right") - 1
    n = len(edges) - 1
    counts, medians, depths = np.zeros(n), np.zeros(n), np.zeros(n)
    order = np.argsort(bins, kind="mergesort")
    last = 0
    while last < len(order) and bins[order[last]] < 0:
        last += 1
    for k in range(n):
        first = last
        while last < len(order) and bins[order[last]] == k:
            last += 1
        inside = order[first:last]
        counts[k] = len(inside)
        if len(inside):
            middle = inside[np.argsort(distance[inside], kind="mergesort")[len(inside) // 2]]
            medians[k], depths[k] = distance[middle], depth[middle]
    return counts, medians, depths


@njit(**SERIAL)
def _fitted(told, sigma, depth, means, model):
    """Base and quadratic that agree best with the bins and with the model, in relative terms, after another frame has
    told some bins their standard deviations and depths, metres; these enter the running means."""
    frames, sigmas, depths = means
    matrix, target = np.diag(PRIOR / model**2), PRIOR / model
    for k in range(len(frames)):
        if told[k]:
            frames[k] = min(frames[k] + 1, MEMORY)
            sigmas[k] += (sigma[k] - sigmas[k]) / frames[k]
            depths[k] += (depth[k] - depths[k]) / frames[k]
        if frames[k] > 0:
            z2 = (depths[k] - 0.4) ** 2
            scale = np.sqrt(frames[k]) / max(sigmas[k], 0.2 * (model[0] + model[1] * z2))
            row = np.array([scale, scale * z2])
            matrix += row.reshape(2, 1) * row
            target += row * (scale * sigmas[k])
    values = np.linalg.solve(matrix, target)
    return np.minimum(np.maximum(values, BOUNDS[0] * model), BOUNDS[1] * model)
