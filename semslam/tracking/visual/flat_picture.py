"""Whether a film is one picture that was shifted, turned and enlarged, which a tracker takes for a room.

A photograph that a film pans over and zooms into shows no parallax, and shifts as a whole. So do a wall and a floor
before which a camera moves in parallel; these a network sees to be flat. A zoom alone looks like a walk ahead, by which
what is near grows more than what is far: a photograph grows as a whole.
"""

from __future__ import annotations

from itertools import chain
from typing import NamedTuple

import cv2
import numpy as np

from semslam.tracking.visual.sparse_map import SparseMap

APART = 1, 2  # keyframes between two that are compared
FEWEST_SHARED, FEWEST_PAIRS = 30, 3  # landmarks that both show, and pairs of keyframes that tell ...
ENLARGED = 0.1  # ... or one of them, where the logarithm of the picture's size changes by so much
MOST_OFF = 0.03  # of the landmarks' way from one keyframe to the other; in recordings of rooms 0.08 and more
# of the way that the enlargement alone takes them, as what grows is followed less well: photographs 0.02 to 0.05, walks
# ahead from 0.11
MOST_OFF_ENLARGED = 0.07
MOST_OF_THEM = 70  # per cent of the landmarks that are off by less
DEEP = 0.3  # from which predicted depth is not flat: range of its logarithm over most of the landmarks of a keyframe


class Change(NamedTuple):
    """From one keyframe to another, as if both showed one picture."""

    off: float  # how far landmarks are from where the picture's change takes them, over what a picture's may be
    enlarged: bool


def is_flat_picture(world: SparseMap) -> bool:
    """Whether a map's landmarks moved as those of one picture, although a network sees depth in it."""
    seen = [world.seen_by(k) for k in range(len(world.keyframes))]
    pairs = chain.from_iterable(zip(seen, seen[apart:]) for apart in APART)
    changes = [change for a, b in pairs if (change := _change(a, b)) is not None]
    depths = [
        float(np.ptp(np.percentile(keyframe.votes.log_depth.astype(np.float32), [10, 90])))
        for keyframe in world.keyframes
        if keyframe.votes is not None and len(keyframe.votes.ids) >= FEWEST_SHARED
    ]
    enough = len(changes) >= FEWEST_PAIRS or any(change.enlarged for change in changes)
    if not enough or not depths:
        return False
    return bool(np.median([change.off for change in changes]) < 1 and np.median(depths) > DEEP)


def _change(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> Change | None:
    """Between two keyframes' landmarks (N,) and their pixels (N, 2); None where they tell nothing."""
    _, mine, theirs = np.intersect1d(a[0], b[0], return_indices=True)
    if len(mine) < FEWEST_SHARED:
        return None
    before, after = a[1][mine], b[1][theirs]
    similarity, _ = cv2.estimateAffinePartial2D(before, after, method=cv2.LMEDS)
    way = float(np.median(np.linalg.norm(after - before, axis=1)))
    if similarity is None or way == 0:
        return None
    moved = before @ similarity[:, :2].T + similarity[:, 2]
    off = float(np.percentile(np.linalg.norm(moved - after, axis=1), MOST_OF_THEM))
    scale = float(np.hypot(*similarity[:, 0]))
    if abs(np.log(scale)) < ENLARGED:
        return Change(off / (MOST_OFF * way), False)
    spread = float(np.median(np.linalg.norm(before - np.median(before, axis=0), axis=1)))
    return Change(off / (MOST_OFF_ENLARGED * abs(scale - 1) * spread), True)
