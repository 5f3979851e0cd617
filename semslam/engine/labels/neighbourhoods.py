"""The mean evidence of the surfels around a place, by which that of each surfel is completed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL

f32 = np.float32
BITS = 21  # of a cube's number, for each axis


class SurfelEvidence(NamedTuple):
    """The evidence of surfels."""

    mean: np.ndarray  # (N, C) float32, of a view
    weights: np.ndarray  # (N,) float32, of their views together; 0 = unlabelled
    views: np.ndarray  # (N,) float32, the effective number of independent ones


class Neighbourhoods:
    """The mean evidence of the surfels around any place.

    Neighbouring surfels differ in class less often than the network's outputs for them. The mean of all surfels around
    one counts as `views` views: it decides where few views or none showed the surfel, and hardly counts where many did.
    A surfel that no view showed gets the mean weight and views of its neighbours.

    Sums are kept for the cubes of a grid, and are interpolated trilinearly between the middles of cubes (as in the
    bilateral grid of Chen et al. 2007), so that no border of a cube shows in a map.
    """

    def __init__(
        self,
        positions: Callable[[], Iterator[np.ndarray]],
        own: Callable[[], Iterator[SurfelEvidence]],
        side: float,
        views: float,
    ) -> None:
        """positions (N, 3), own: of a map's surfels, part by part, at least one, as often as asked for.

        side: of the cubes; it and the positions are in metres.
        """
        self._side, self._views = side, f32(views)
        self._numbers = np.empty(0, np.int64)
        for part in positions():
            self._numbers = np.union1d(self._numbers, self._cubes(part))
        sums: list[np.ndarray] = []
        for part, (mean, weights, views_of) in zip(positions(), own(), strict=True):
            cube = np.searchsorted(self._numbers, self._cubes(part))
            columns = (weights * column for column in mean.T)  # one at a time: together they are a map of their own
            values = chain((weights, weights > 0, weights * views_of), columns)
            if not sums:
                sums = [np.bincount(cube, value, len(self._numbers)) for value in values]
            else:
                for total, value in zip(sums, values):
                    np.add.at(total, cube, value)  # in order, as bincount adds: the sums of one part, to the last bit
        self._sums = np.stack([total.astype(f32) for total in sums], axis=1)

    def completed(self, own: SurfelEvidence, positions: np.ndarray) -> SurfelEvidence:
        """The evidence of surfels of the map, at these positions (N, 3), with that around them."""
        around = np.empty((len(positions), self._sums.shape[1]), f32)
        interpolate(positions.astype(f32, copy=False), self._side, self._numbers, self._sums, around)
        total_weight, labelled, weighted_views, total = np.split(around, [1, 2, 3], axis=1)
        known = own.weights > 0
        weight = np.where(known, self._views, f32(1))[:, None]  # of the surfels around
        mean = own.weights[:, None] * own.mean + weight * divided(total, total_weight)
        return SurfelEvidence(
            divided(mean, own.weights[:, None] + weight),
            np.where(known, own.weights, divided(total_weight, labelled)[:, 0]),
            np.where(known, own.views, divided(weighted_views, total_weight)[:, 0]),
        )

    def _cubes(self, positions: np.ndarray) -> np.ndarray:
        """(N,) int64: the number of the cube of space that each position is in."""
        cubes = np.floor(positions / f32(self._side)).astype(np.int64)
        return cube_number(cubes[:, 0], cubes[:, 1], cubes[:, 2])


def divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Values (N, K) divided by those of a shape (N, 1) or (N, K); 0 where these are 0."""
    return np.divide(values, by, out=np.zeros_like(values), where=by > 0)


@nb.njit(inline="always")
def cube_number(x, y, z):
    """The number of a cube from its place in the grid; cubes 2^21 sides apart share one."""
    mask = (1 << BITS) - 1
    return ((x & mask) << 2 * BITS) | ((y & mask) << BITS) | (z & mask)


@nb.njit(**PARALLEL)
def interpolate(positions, side, numbers, sums, out):
    """Sums (M, K) of the cubes with these numbers (M,), in order, interpolated at positions (N, 3); into (N, K).

    Of the eight cubes whose middles surround a position, those that are not among `numbers` hold nothing.
    """
    for i_ in nb.prange(len(positions)):
        i = np.int64(i_)  # prange counts unsigned
        x, y, z = positions[i, 0] / side - 0.5, positions[i, 1] / side - 0.5, positions[i, 2] / side - 0.5
        x0, y0, z0 = np.int64(np.floor(x)), np.int64(np.floor(y)), np.int64(np.floor(z))
        out[i] = 0
        for corner in range(8):
            dx, dy, dz = corner >> 2, corner >> 1 & 1, corner & 1
            number = cube_number(x0 + dx, y0 + dy, z0 + dz)
            k = np.searchsorted(numbers, number)
            if k == len(numbers) or numbers[k] != number:
                continue
            weight = f32((1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy)) * (1 - abs(z - z0 - dz)))
            for j in range(sums.shape[1]):
                out[i, j] += weight * sums[k, j]
