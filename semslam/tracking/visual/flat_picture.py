"""Whether a film is one picture that was shifted, turned and enlarged, which a tracker takes for a room.

A photograph that a film pans over and zooms into shows no parallax, and shifts as a whole. So do a wall and a floor
before which a camera moves in parallel; these a network sees to be flat.
"""

from __future__ import annotations

import cv2
import numpy as np

from semslam.tracking.visual.sparse_map import SparseMap

APART = 2  # keyframes between two that are compared
FEWEST_SHARED, FEWEST_PAIRS = 30, 3  # landmarks that both show, and pairs of keyframes that tell
MOST_OFF = 0.03  # of the landmarks' way from one keyframe to the other; in recordings of rooms 0.1 to 0.3
MOST_OF_THEM = 70  # per cent of the landmarks that are off by less
DEEP = 0.3  # from which predicted depth is not flat: range of its logarithm over most of the landmarks of a keyframe


def is_flat_picture(world: SparseMap) -> bool:
    """Whether a map's landmarks moved as those of one picture, although a network sees depth in it."""
    off, depths = [], []
    for k in range(len(world.keyframes) - APART):
        a, b = world.seen_by(k), world.seen_by(k + APART)
        _, mine, theirs = np.intersect1d(a[0], b[0], return_indices=True)
        if len(mine) < FEWEST_SHARED:
            continue
        before, after = a[1][mine], b[1][theirs]
        similarity, _ = cv2.estimateAffinePartial2D(before, after, method=cv2.LMEDS)
        way = float(np.median(np.linalg.norm(after - before, axis=1)))
        if similarity is not None and way > 0:
            moved = before @ similarity[:, :2].T + similarity[:, 2]
            off.append(float(np.percentile(np.linalg.norm(moved - after, axis=1), MOST_OF_THEM)) / way)
    for keyframe in world.keyframes:
        if keyframe.votes is not None and len(keyframe.votes.ids) >= FEWEST_SHARED:
            depths.append(float(np.ptp(np.percentile(keyframe.votes.log_depth.astype(np.float32), [10, 90]))))
    if len(off) < FEWEST_PAIRS or not depths:
        return False
    return bool(np.median(off) < MOST_OFF and np.median(depths) > DEEP)
