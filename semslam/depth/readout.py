"""A Kinect of the first kind is known by the steps of its depth, which it counts in eighths of a pixel.

Inverse depth is a multiple of 1 / (8 x focal length x baseline), about 1 / 348 a metre, whoever registered or stored
it. Time-of-flight cameras and rendered depth know no such steps, other stereo cameras finer ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import numpy as np

from semslam.frame import evenly_spread
from sequences import CorruptFrame, Sequence

KINECT_READOUT = 0.03  # seconds that a Kinect takes to read an image row by row, nearly all of a thirtieth
FRAMES = 4  # that are looked at

STEPS = np.arange(325.0, 366.0)  # a metre of inverse depth: Kinects', of which TUM lengthened one's depth by 3.5 %
OTHERS = np.array(
    [197.0, 227.0, 257.0, 283.0, 431.0, 467.0, 503.0, 541.0]
)  # steps that are no sensor's, to compare with
NEAR, FAR = 1.2, 4.0  # metres: nearer, steps drown in millimetres, farther in the slope of the registration
TILES = 10  # of an image's side: in a tile, registration to another camera moves all steps alike
LEAST_PIXELS = 0.13  # of a tile, with depth
LEAST_SPREAD = 0.03  # metres of depth within a tile: a wall seen straight on has one step, which fits any
CLEAR = 0.4  # of 1: how well inverse depth keeps the steps in the mean tile; Kinects 0.64 to 0.96, others up to 0.1
CONTRAST = 2.0  # times how well it keeps steps that are no sensor's


def readout_of(sequence: Sequence) -> float:
    """Seconds that a recording's depth camera takes to read an image: as it says, else a Kinect's if depth is one's.

    A Kinect reads its images line by line along their longer side: upright ones were turned, to which side is unknown.
    """
    if sequence.readout is not None:
        return sequence.readout
    if sequence.camera.height > sequence.camera.width:
        return 0.0
    depths = []
    for index in evenly_spread(range(len(sequence)), FRAMES):
        with suppress(CorruptFrame, OSError):
            depths.append(sequence.depth_of(index))
    return KINECT_READOUT if has_kinect_steps(depth for depth in depths if depth is not None) else 0.0


def has_kinect_steps(depths: Iterable[np.ndarray]) -> bool:
    """Whether depth images (H, W), metres, 0 = none, are a Kinect's; False where nothing tells."""
    kept = [tile for depth in depths for tile in _tiles(depth)]
    if not kept:
        return False
    ours = np.mean([_coherence(tile, STEPS) for tile in kept], 0).max()
    others = np.median(np.mean([_coherence(tile, OTHERS) for tile in kept], 0))
    return bool(ours > CLEAR and ours > CONTRAST * others)


def _tiles(depth: np.ndarray) -> Iterable[np.ndarray]:
    """Inverse depth (N,) of every second tile in both directions that tells something."""
    height, width = depth.shape[0] // TILES, depth.shape[1] // TILES
    for top in range(0, TILES * height, 2 * max(height, 1)):
        for left in range(0, TILES * width, 2 * max(width, 1)):
            tile = depth[top : top + height, left : left + width]
            z = tile[(tile > NEAR) & (tile < FAR)]
            if len(z) >= LEAST_PIXELS * tile.size and np.std(z) > LEAST_SPREAD:
                yield 1 / z[::3].astype(np.float64)


def _coherence(inverse: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """How well inverse depths (N,) lie on multiples of 1 / steps (S,): 1 where all do, near 0 where none does."""
    return np.abs(np.exp(2j * np.pi * inverse * steps[:, None]).mean(1))
