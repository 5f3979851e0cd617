"""A number that stands for missing depth in place of 0, among the readings: 4.000 m or 0.010 m at all that is unseen.

Surfaces have many depths, and border what is about as deep as they are. A mark is one number alone, and it borders
anything: what is nearer as well as what is farther.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST = 0.01  # of the readings
IN_FRAMES = 0.75  # of the frames
LIKELIEST = 3  # numbers that are looked at, those that occur most often
BESIDE, PEAK = 0.05, 5.0  # of the depth; and times as often as any other number as near to it as that
STEP = 0.03  # of the depth, by which readings differ that are of two surfaces
AT_STEPS = 0.7  # of the borders with other readings; of a surface, half or more go on to its like
EITHER_WAY = 0.05  # of those, at least, with what is nearer and with what is farther: a surface hides, or is hidden ...
ALL, FAR_APART = 0.95, 0.2  # ... or nearly all are at steps, and of so much of the depth (median)
MANY = 100  # other numbers in an image: drawn scenes of a few flat things have hardly any


class Mark(NamedTuple):
    depth: float  # metres
    share: float  # of the readings


def mark(depths: Sequence[np.ndarray]) -> Mark | None:
    """The number that stands for missing depth in some images (H, W) in metres, 0 = none; None where none does."""
    readings = [valid for depth in depths if len(valid := depth[depth > 0])]
    if not readings:
        return None
    values, counts = np.unique(np.concatenate(readings), return_counts=True)
    for which in np.argsort(-counts)[:LIKELIEST]:
        value, share = values[which], counts[which] / counts.sum()
        beside = (np.abs(values - value) < BESIDE * value) & (values != value)
        often = share > LEAST and np.mean([np.any(frame == value) for frame in readings]) >= IN_FRAMES
        if often and counts[which] > PEAK * counts[beside].max(initial=0) and _borders_anything(depths, value):
            return Mark(float(value), float(share))
    return None


def _borders_anything(depths: Sequence[np.ndarray], value: np.floating) -> bool:
    """Whether readings of that number lie beside nearer and beside farther ones, and hardly beside their like."""
    others = []
    for depth in depths:
        for one, next_one in ((depth[:, :-1], depth[:, 1:]), (depth[:-1], depth[1:])):
            others += [next_one[(one == value) & (next_one > 0)], one[(next_one == value) & (one > 0)]]
    beside = np.concatenate(others)
    beside = beside[beside != value]
    if not len(beside):
        return False
    steps = beside / value - 1
    nearer, farther = np.mean(steps < -STEP), np.mean(steps > STEP)
    if np.median([len(np.unique(depth)) for depth in depths]) <= MANY:
        return False
    hides_and_is_hidden = nearer + farther > AT_STEPS and min(nearer, farther) > EITHER_WAY
    return bool(hides_and_is_hidden or (nearer + farther > ALL and np.median(np.abs(steps)) > FAR_APART))
