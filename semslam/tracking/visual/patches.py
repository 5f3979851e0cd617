"""Patches of one image found in another: followed to the next frame, or from where landmarks were first seen."""

from __future__ import annotations

import numpy as np

from semslam.tracking.optical_flow import LEVELS, follow
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.sparse_map import SparseMap

MARGIN = 4  # pixels at the border of an image that nothing is followed into


def matched(
    before: np.ndarray, now: np.ndarray, pixels: np.ndarray, start: np.ndarray, config: VisualConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Where patches around pixels (N, 2) of one image are in another, and which of them are there for certain.

    start: (N, 2), where the search begins.
    """
    size = np.array(now.shape[::-1])
    start = np.clip(start, MARGIN, size - 1 - MARGIN)
    window = max(9, round(config.window)) | 1
    there, apart, found = follow(before, now, pixels, window, start=start, back=pixels, back_levels=LEVELS - 2)
    inside = ((there >= MARGIN) & (there < size - MARGIN)).all(axis=1)
    return there, found & inside & (apart < config.returns)


def matched_to_hosts(
    world: SparseMap, grey: np.ndarray, ids: np.ndarray, expected: np.ndarray, config: VisualConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Where an image shows landmarks (N,) as their hosts did, pixels (N, 2), and which are near the expected ones.

    The hosts' images have to be kept still.
    """
    hosts, pixels, found = world.host[ids], expected.copy(), np.zeros(len(ids), bool)
    for h in np.unique(hosts):
        mine = hosts == h
        image = world.keyframes[h].grey
        assert image is not None
        start = expected[mine]
        pixels[mine], found[mine] = matched(image, grey, world.pixels_in_host(ids[mine]), start, config)
    return pixels, found & (np.linalg.norm(pixels - expected, axis=1) < config.again_radius)
