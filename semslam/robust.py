"""Statistics that a few wrong values hardly move."""

from __future__ import annotations

import numpy as np

MAD_TO_STD = 1.4826  # the standard deviation of a normal distribution over its median absolute deviation


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """The value (N,) that splits the weights (N,) in halves; N is at least 1."""
    order = np.argsort(values, kind="stable")
    half = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order[np.searchsorted(half, half[-1] / 2)]])
