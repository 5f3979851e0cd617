"""What a network's depth says of the scale of a map that images alone have made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semslam.robust import MAD_TO_STD, weighted_median

PLACE_STD = 0.2  # of the logarithm of truth / network in a place: 0.15 over five places, of which one is off by 0.33
VOTE_POWER = 2  # of its confidence, by which a depth and a keyframe vote: with 1, all of five places were farther off
LEAST_SCATTER = 0.02  # of the logarithm of depth: less says no more of how well an image was understood


class Votes(NamedTuple):
    """What a network says of the depth of N landmarks that a keyframe shows."""

    ids: np.ndarray  # (N,) int32
    log_depth: np.ndarray  # (N,) float16, of metres
    confidence: np.ndarray  # (N,) float16 in 0..1, about inversely proportional to the variance of log_depth
    focal: float  # pixels: that of the camera which the network was told, to which its depth is proportional


class Vote(NamedTuple):
    """What an image says of a map's scale."""

    level: float  # logarithm of the map's depth over the network's
    weight: float


def vote_of(levels: np.ndarray, confidence: np.ndarray, power: float = VOTE_POWER) -> Vote:
    """What an image says whose landmarks (N,) have these levels and the network's confidence; N is at least 1.

    Their median, each weighted with a power of its confidence. The weight is that power of their mean confidence, over
    what the levels scatter: a network that sees the shape of a scene wrong sees its size wrong as well. Over the square
    of that would follow single images that are wrong as a whole.
    """
    level = weighted_median(levels, confidence**power)
    scatter = max(weighted_median(np.abs(levels - level), confidence**power), LEAST_SCATTER)
    return Vote(level, float(confidence.mean()) ** power / scatter)


def voted_scale(levels: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Metres in a map's unit, and its relative standard deviation, of votes (N,): log of the map's over true depth.

    Four neighbouring images count as one: the network errs alike in them. By how much it errs alike in all images of a
    place, no number of votes can tell. weights: (N,) of the votes, positive.
    """
    if len(levels) == 0:
        return 1.0, 1.0
    middle = weighted_median(levels, weights)
    spread = MAD_TO_STD * weighted_median(np.abs(levels - middle), weights)
    count = weights.sum() ** 2 / (weights**2).sum()  # of equal votes that tell as much
    votes = max(spread, 0.05) / np.sqrt(max(count / 4, 1))
    return float(np.exp(-middle)), float(np.hypot(votes, PLACE_STD))
