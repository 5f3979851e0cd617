"""Depth as the 16 bits of a layout hold it, and how much of it they cannot."""

from __future__ import annotations

import logging

import numpy as np

from semslam import images

logger = logging.getLogger(__name__)

MOST_LOST = 0.5  # of a recording's depth: without more than that it would be another one


class DepthUnits:
    """Writes depth in units, and counts what is beyond their range and becomes none."""

    def __init__(self, scale: float) -> None:
        """scale: units per metre."""
        self.scale = scale
        self._measured = self._lost = 0  # pixels

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        """(H, W) uint16 of depth (H, W) in metres, 0 = none."""
        units = images.depth_units(depth, self.scale)
        self._measured += int(np.count_nonzero(depth))
        self._lost += int(np.count_nonzero((units == 0) & (depth * self.scale > 1)))
        return units

    def tell_lost(self, name: str) -> None:
        """Warn where some depth of the recording of this name was lost; ValueError where it was most."""
        if not self._lost:
            return
        share = self._lost / self._measured
        what = f"{name}: {share:.2g} of its depth" if share < 0.01 else f"{name}: {share:.0%} of its depth"
        farthest = f"beyond {images.MARK / self.scale:.1f} m, where 16 bits of {1000 / self.scale:g} mm end"
        if share > MOST_LOST:
            raise ValueError(f"{what} is {farthest}; write a plain folder (--to folder), which takes larger units")
        logger.warning("%s is %s, and becomes none; a plain folder (--to folder) takes larger units", what, farthest)
