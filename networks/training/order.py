"""The order in which a training meets its images: all of them once in each epoch, each epoch shuffled anew."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np


@lru_cache(maxsize=8)  # a step may end one epoch and begin the next, of images and of an odometry's
def _shuffled(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng([seed, 1, epoch]).permutation(count)


def drawn_place(sizes: Sequence[int], position: int, seed: int) -> tuple[int, int]:
    """Which of some sets, and which place in it, comes at a position of the endless order; `sizes` are the sets'."""
    count = sum(sizes)
    epoch, number = divmod(position, count)
    place = int(_shuffled(count, seed, epoch)[number])
    for which, size in enumerate(sizes):
        if place < size:
            return which, place
        place -= size
    raise AssertionError("unreachable")
