"""The noise of a depth sensor: what is known of its kind, and what the recording itself says of it.

A sensor's standard deviation of depth z follows sigma(z) = base + quadratic (z - 0.4)^2 (Nguyen et al. 2012, eq. 3);
stereo cameras follow it too, their error being disparity's times z^2 / (focal length x baseline). What is measured is
the distance of a frame from the map after registration, by depth: the noise of the frame, and what the map errs.
"""

from __future__ import annotations

import numpy as np

# Standard deviation at 0.4 m in metres, and its growth a metre.
SENSORS = {
    "kinect": (0.0012, 0.0019),  # structured light: Kinect v1, Asus Xtion, PrimeSense
    "tof": (0.0015, 0.0008),  # time of flight: Kinect v2, Azure Kinect
    "realsense": (0.0010, 0.0065),  # active stereo with a short baseline: RealSense D400
    "lidar": (0.0060, 0.0010),  # of telephones, upsampled
    "synthetic": (0.0006, 0.0004),
}

EDGES = np.array([0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.6, 1.9, 2.2, 2.6, 3.0, 3.5, 4.0, 5.0])  # metres
FEWEST = 40  # residuals of a frame in a bin that say something
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
        self._depth = np.zeros(len(EDGES) - 1)  # metres: mean depth there
        self._frames = np.zeros(len(EDGES) - 1)  # that have told of the bin, at most MEMORY

    @property
    def base(self) -> float:
        """Metres."""
        return float(self.values[0])

    @property
    def quadratic(self) -> float:
        """1 / metre."""
        return float(self.values[1])

    def sigma(self, depth: np.ndarray) -> np.ndarray:
        """Standard deviation in metres at depths (N,), metres."""
        return self.values[0] + self.values[1] * (depth - 0.4) ** 2

    def learn(self, depth: np.ndarray, residual: np.ndarray) -> None:
        """Take in one frame's residuals (N,) to the map, metres, at depths (N,), metres."""
        bins = np.searchsorted(EDGES, depth, side="right") - 1
        heard = False
        for k in range(len(self._frames)):
            inside = bins == k
            if np.count_nonzero(inside) < FEWEST:
                continue
            heard = True
            self._frames[k] = min(self._frames[k] + 1, MEMORY)
            share = 1 / self._frames[k]
            # the median bears what does not fit
            self._sigma[k] += share * (1.4826 * float(np.median(np.abs(residual[inside]))) - self._sigma[k])
            self._depth[k] += share * (float(depth[inside].mean()) - self._depth[k])
        if heard:
            self.values = self._fitted()

    def _fitted(self) -> np.ndarray:
        """Base and quadratic that agree best with the bins and with the model, in relative terms."""
        known = self._frames > 0
        weight = np.sqrt(self._frames[known])
        sigma, z = self._sigma[known], self._depth[known]
        scale = weight / np.maximum(sigma, 0.2 * (self.model[0] + self.model[1] * (z - 0.4) ** 2))
        rows = np.concatenate([np.column_stack([np.ones(len(z)), (z - 0.4) ** 2]) * scale[:, None],
                               np.diag(np.sqrt(PRIOR) / self.model)])  # fmt: skip
        values = np.linalg.lstsq(rows, np.concatenate([sigma * scale, np.full(2, np.sqrt(PRIOR))]), rcond=None)[0]
        return np.clip(values, BOUNDS[0] * self.model, BOUNDS[1] * self.model)

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on; for `restore`."""
        return {"values": self.values, "sigma": self._sigma, "depth": self._depth, "frames": self._frames}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self.values, self._sigma = state["values"].copy(), state["sigma"].copy()
        self._depth, self._frames = state["depth"].copy(), state["frames"].copy()
