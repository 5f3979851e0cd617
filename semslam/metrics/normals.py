"""How far predicted surface normals are turned from the true ones.

Angles acos(<n, n'>) pooled over the valid pixels of the whole set (Fouhey et al., ICCV 2013): their mean, median and
RMS in degrees, and the fractions below 11.25, 22.5 and 30 degrees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_BIN_DEGREES = 0.01  # of the histogram that holds the median of a set too large to keep
THRESHOLDS = (11.25, 22.5, 30.0)  # degrees


@dataclass(frozen=True)
class NormalScores:
    """Angles in degrees, fractions 0 to 1; NaN where no pixel is valid."""

    protocol: str
    mean_deg: float
    median_deg: float  # within 0.01 degrees
    rmse_deg: float
    within_11_25: float
    within_22_5: float
    within_30: float
    pixels: int


class NormalErrors:
    """Angles between normals over a set of images, in constant memory."""

    def __init__(self) -> None:
        self._histogram = np.zeros(int(180 / _BIN_DEGREES), np.int64)
        self._sum = self._squared_sum = 0.0
        self._within = np.zeros(len(THRESHOLDS), np.int64)

    def add(self, prediction: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> None:
        """Count one pair of normal images (H, W, 3) of any length.

        Pixels whose true normal is zero or not finite do not count, nor those outside `valid` (H, W) bool. A zero
        prediction is 90 degrees off.
        """
        if prediction.shape != truth.shape:
            raise ValueError(f"the prediction is {prediction.shape}, the truth {truth.shape}; resize one of them first")
        length = np.linalg.norm(truth.astype(np.float64), axis=-1)
        counted = np.isfinite(length) & (length > 1e-6)
        if valid is not None:
            counted &= valid
        n, m = prediction[counted].astype(np.float64), truth[counted].astype(np.float64)
        cosine = (n * m).sum(axis=-1) / (np.maximum(np.linalg.norm(n, axis=-1), 1e-12) * length[counted])
        angles = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        bins = np.minimum((angles / _BIN_DEGREES).astype(np.int64), len(self._histogram) - 1)
        self._histogram += np.bincount(bins, minlength=len(self._histogram))
        self._sum += float(angles.sum())
        self._squared_sum += float((angles**2).sum())
        self._within += [(angles < threshold).sum() for threshold in THRESHOLDS]

    def scores(self) -> NormalScores:
        """The figures of everything counted so far."""
        pixels = int(self._histogram.sum())
        protocol = "angles pooled over valid pixels"
        if not pixels:
            nothing = float("nan")
            return NormalScores(protocol, nothing, nothing, nothing, nothing, nothing, nothing, 0)
        median_bin = int(np.searchsorted(np.cumsum(self._histogram), pixels / 2))
        within_11_25, within_22_5, within_30 = (float(count) / pixels for count in self._within)
        return NormalScores(
            protocol,
            self._sum / pixels,
            (median_bin + 0.5) * _BIN_DEGREES,
            float(np.sqrt(self._squared_sum / pixels)),
            within_11_25,
            within_22_5,
            within_30,
            pixels,
        )
