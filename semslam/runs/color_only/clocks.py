"""Poses and images whose clocks differ: by how much the images tell, and the poses at the images' moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from semslam import poses

MOST = 0.1  # seconds between the clocks
STEP = 0.02  # seconds between the offsets that are tried
EXPLAINS = 1 / 5  # of what contradicts the images: an offset that explains less is none
ACCURACY = 1e-3  # seconds, to which the best one is searched
MOST_GAP = 0.5  # seconds between two poses between which others are interpolated


def time_offset(misfit_at: Callable[[float], float], least: float) -> float:
    """Seconds from the times of images to those of the poses that fit them; 0 where that explains too little.

    misfit_at: pixels, of poses taken so many seconds later. least: pixels, of the best poses whatever their times.
    """
    offsets = np.linspace(-MOST, MOST, 2 * round(MOST / STEP) + 1)
    misfits = [misfit_at(float(offset)) for offset in offsets]
    best = int(np.argmin(misfits))
    if best in (0, len(offsets) - 1):
        return 0.0
    found = minimize_scalar(
        misfit_at, bounds=offsets[[best - 1, best + 1]], method="bounded", options={"xatol": ACCURACY}
    )
    now = misfits[len(offsets) // 2] ** 2
    return float(found.x) if now - found.fun**2 > EXPLAINS * (now - least**2) else 0.0


def at_other_times(
    T_world_camera: Sequence[np.ndarray | None], timestamps: np.ndarray, offset: float
) -> list[np.ndarray | None]:
    """The poses of frames, (4, 4) or None, so many seconds after their times (N,), or before.

    Interpolated between frames that have one, and beyond the first and the last of them by as much as a frame; None
    where that does not reach. No offset: the very same.
    """
    known = [i for i, T in enumerate(T_world_camera) if T is not None]
    if offset == 0 or len(known) < 2:
        return list(T_world_camera)
    times = np.asarray(timestamps, np.float64)[known]
    found: list[np.ndarray | None] = [None] * len(T_world_camera)
    for i in known:
        time = float(timestamps[i]) + offset
        n = int(np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(known) - 2))
        gap = times[n + 1] - times[n]
        fraction = (time - times[n]) / gap if gap > 0 else np.inf
        if gap <= MOST_GAP and -1 <= fraction <= 2:
            T_0, T_1 = T_world_camera[known[n]], T_world_camera[known[n + 1]]
            assert T_0 is not None and T_1 is not None
            found[i] = poses.interpolate(T_0, T_1, float(fraction))
    return found
