"""A zoom from one image to the next, at which all landmarks are lost: by how much.

Between two images of a film a camera hardly moves; what makes the second one larger or smaller by a tenth and more is
its lens. Corners are matched by what they look like at any size (ORB), and a similarity explains most of them.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

LONGEST = 640  # pixels: longer side of the images that are compared
CORNERS = 1500
LEAST = 0.08  # logarithm of a zoom that is a jump
EXACT = 3.0  # pixels that a corner may be off
FEWEST, SHARE = 40, 0.2  # corners, and share of the matched ones, that must agree; of other places it is 10, 0.03


def jump_between(before: np.ndarray, after: np.ndarray) -> float | None:
    """The focal length of an image (H, W, 3) uint8 RGB over that of the one before it; None where it did not jump."""
    (corners, looks), (others, other_looks) = _corners(before), _corners(after)
    if min(len(corners), len(others)) < FEWEST:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(looks, other_looks)
    if len(matches) < FEWEST:
        return None
    pairs = np.array([(match.queryIdx, match.trainIdx) for match in matches])
    similarity, agree = cv2.estimateAffinePartial2D(
        corners[pairs[:, 0]], others[pairs[:, 1]], method=cv2.RANSAC, ransacReprojThreshold=EXACT
    )
    if similarity is None or agree.sum() < max(FEWEST, SHARE * len(matches)):
        return None
    jump = math.hypot(similarity[0, 0], similarity[1, 0])
    return jump if abs(math.log(jump)) > LEAST else None


def _corners(color: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners (N, 2) float32, and what they look like (N, 32) uint8."""
    grey = cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    if (shrink := max(grey.shape) / LONGEST) > 1:
        grey = cv2.resize(grey, None, fx=1 / shrink, fy=1 / shrink, interpolation=cv2.INTER_AREA)
    found, looks = cv2.ORB.create(nfeatures=CORNERS, fastThreshold=10).detectAndCompute(grey, None)
    if looks is None:
        return np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8)
    return np.array([corner.pt for corner in found], np.float32), looks
