"""How much readings of a depth camera scatter from pixel to pixel, where that is more than its kind is known for.

Where noise is much larger than filter and gates expect, the one does not smooth and the others do not accept what could
tell that it is. Three neighbours in a row tell it of any image: inverse depth is linear along a plane, and the median
bears edges. Noise that neighbours share, as stereo cameras', and steps, as a Kinect's, are hardly seen so: what is
found is the least that there is.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from semslam.camera import FARTHER, depth_std
from semslam.frame import evenly_spread
from semslam.robust import MAD_TO_STD
from sequences import CorruptFrame, Sequence

FRAMES = 4  # that are looked at
EDGES = np.array([0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, *FARTHER])  # metres, of bins of depth
FEWEST = 1000  # readings of a bin
LARGER, MOST = 2.0, 6.0  # times: less is within what cameras of one kind differ by, and more is no noise


def scatter_of(sequence: Sequence, base: float, quadratic: float) -> float:
    """How many times larger a recording's noise is than expected, metres and 1 / metre; 1 where that is hardly so."""
    depths = []
    for index in evenly_spread(range(len(sequence)), FRAMES):
        with suppress(CorruptFrame, OSError):
            depths.append(sequence.depth_of(index))
    factor = times_larger((depth for depth in depths if depth is not None), base, quadratic)
    return factor if LARGER <= factor <= MOST else 1.0


def times_larger(depths: Iterable[np.ndarray], base: float, quadratic: float) -> float:
    """How many times as much as expected depth images (H, W), metres, 0 = none, scatter; 0 where nothing tells."""
    near, off = [np.zeros(0)], [np.zeros(0)]
    for depth in depths:
        rows = depth[::2].astype(np.float64)
        rows = rows[:, : rows.shape[1] // 3 * 3].reshape(len(rows), -1, 3)
        left, middle, right = np.moveaxis(rows[(rows > 0).all(axis=2)], 1, 0)
        near.append(middle)
        off.append(middle**2 * np.abs(1 / left - 2 / middle + 1 / right))
    z, scatter = np.concatenate(near), np.concatenate(off)
    bins, ratios = np.digitize(z, EDGES), []
    for k in range(1, len(EDGES)):
        inside = bins == k
        if np.count_nonzero(inside) >= FEWEST:
            expected = depth_std(float(np.median(z[inside])), base, quadratic)
            # the variance of a second difference is six times that of a reading
            ratios.append(MAD_TO_STD * float(np.median(scatter[inside])) / 6**0.5 / expected)
    return float(np.median(ratios)) if ratios else 0.0
