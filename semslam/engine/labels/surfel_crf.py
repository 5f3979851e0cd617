"""A conditional random field over surfels: neighbours that look alike should have the same class.

Kraehenbuehl and Koltun (2011) with the kernels that McCormac et al. (2017, sec. III-D) put on surfels, on the graph of
each surfel's nearest neighbours instead of all pairs: linear in the surfels, and far labels still travel, a neighbour
an iteration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numba as nb
import numpy as np

from semslam.cloud import SurfelCloud
from semslam.compiled import PARALLEL
from semslam.config import Count, NotNegative, Positive, Range, check_ranges

f32 = np.float32
AT_ONCE = 1 << 16  # surfels
LEAST = 1e-12  # added to probabilities before their logarithm is taken, as SemanticFusion does
MOST_ITERATIONS = 1000  # the marginals change little after some ten


@dataclass(frozen=True)
class CrfConfig:
    """The two kernels, Gaussians of place and normal and of place and colour; SemanticFusion's values."""

    sigma_position: Positive = 0.05  # metres
    sigma_normal: Positive = 0.1
    sigma_color: Positive = 20.0  # of 255
    weight_normal: NotNegative = 3.0
    weight_color: NotNegative = 10.0
    iterations: Annotated[int, Range(0, MOST_ITERATIONS)] = 10
    neighbours: Count = 16

    def __post_init__(self) -> None:
        check_ranges(self, "")


def nearest_neighbours(positions: np.ndarray, count: int) -> np.ndarray:
    """(N, K) int32 the nearest other points of each of (N, 3), K = count or as many as there are."""
    from scipy.spatial import cKDTree

    count = min(count, len(positions) - 1)
    if count < 1:
        return np.zeros((len(positions), 0), np.int32)
    # the tree is the same for balanced or not; halves of a cell are found faster than medians
    tree = cKDTree(positions, balanced_tree=False, compact_nodes=False)
    found = np.empty((len(positions), count + 1), np.int32)
    for first in range(0, len(positions), AT_ONCE):  # distances, and 64 bits a number, are of one block
        found[first : first + AT_ONCE] = tree.query(positions[first : first + AT_ONCE], k=count + 1, workers=-1)[1]
    own = found == np.arange(len(positions), dtype=np.int32)[:, None]
    own[~own.any(axis=1), -1] = True  # among many in one place a point itself may not be found: drop the farthest
    return found[~own].reshape(len(positions), count)


class _Scales(NamedTuple):
    """1 / 2 sigma^2 of the Gaussians."""

    place: np.float32
    normal: np.float32
    color: np.float32


@nb.njit(**PARALLEL)
def _kernels(neighbours, positions, normals, colors, scales, like_normal, like_color, sums):
    """The two kernels of each pair, and their sums a surfel."""
    by_place, by_normal, by_color = scales
    for i_ in nb.prange(len(neighbours)):
        i = np.int64(i_)
        sum_normal = f32(0)
        sum_color = f32(0)
        for k in range(neighbours.shape[1]):
            j = neighbours[i, k]
            place = f32(0)
            normal = f32(0)
            color = f32(0)
            for a in range(3):
                d = positions[i, a] - positions[j, a]
                place += d * d
                d = normals[i, a] - normals[j, a]
                normal += d * d
                d = f32(colors[i, a]) - f32(colors[j, a])
                color += d * d
            like_normal[i, k] = np.exp(-place * by_place - normal * by_normal)
            like_color[i, k] = np.exp(-place * by_place - color * by_color)
            sum_normal += like_normal[i, k]
            sum_color += like_color[i, k]
        sums[i, 0] = sum_normal
        sums[i, 1] = sum_color


@nb.njit(**PARALLEL)
def _weights(neighbours, sums, weight_normal, weight_color, like_normal, like_color):
    """like_normal becomes the weight of each pair: both kernels, each divided by the root of its two sums."""
    for i_ in nb.prange(len(neighbours)):
        i = np.int64(i_)
        for k in range(neighbours.shape[1]):
            j = neighbours[i, k]
            a = np.sqrt(sums[i, 0] * sums[j, 0]) + f32(1e-20)
            b = np.sqrt(sums[i, 1] * sums[j, 1]) + f32(1e-20)
            like_normal[i, k] = weight_normal * like_normal[i, k] / a + weight_color * like_color[i, k] / b


@nb.njit(**PARALLEL)
def _iterate(neighbours, weights, evidence, q, out):
    """out[i] = softmax(evidence[i] + sum over neighbours j of weights[i, j] * q[j])."""
    n_classes = q.shape[1]
    for i_ in nb.prange(len(neighbours)):
        i = np.int64(i_)
        for c in range(n_classes):
            out[i, c] = evidence[i, c]
        for k in range(neighbours.shape[1]):
            j = neighbours[i, k]
            w = weights[i, k]
            for c in range(n_classes):
                out[i, c] += w * q[j, c]
        most = out[i, 0]
        for c in range(1, n_classes):
            most = max(most, out[i, c])
        total = f32(0)
        for c in range(n_classes):
            out[i, c] = np.exp(out[i, c] - most)
            total += out[i, c]
        for c in range(n_classes):
            out[i, c] /= total


def pair_weights(cloud: SurfelCloud, neighbours: np.ndarray, config: CrfConfig) -> np.ndarray:
    """(N, K) float32 how strongly each neighbour (N, K) pulls, 13 in all with the default weights in even surroundings.

    Each kernel is normalised by the root of its sums at both ends, so that what it weighs does not depend on how dense
    the surfels are.
    """
    like_normal, like_color = (np.empty(neighbours.shape, f32) for _ in range(2))
    sums = np.empty((len(cloud), 2), f32)
    sigmas = config.sigma_position, config.sigma_normal, config.sigma_color
    scales = _Scales(*(f32(0.5 / sigma**2) for sigma in sigmas))
    _kernels(neighbours, cloud.positions, cloud.normals, cloud.colors, scales, like_normal, like_color, sums)
    _weights(neighbours, sums, f32(config.weight_normal), f32(config.weight_color), like_normal, like_color)
    return like_normal


def refined_probabilities(cloud: SurfelCloud, config: CrfConfig | None = None) -> np.ndarray:
    """(N, C) float32 class probabilities with the field's classes; the same for any number of threads.

    The field decides between classes, and each surfel is as sure of its own as it was before: the probability of the
    class it had goes to the field's, and the other way round. Surfels that had none are, on average, as sure as those
    that had one, see `as_sure_as`.
    """
    config = config or CrfConfig()
    q, p = mean_field(cloud, config), cloud.class_probabilities
    assert p is not None
    known = p.max(axis=1, initial=0) > 0
    if config.iterations and known.any():
        labelled = q.max(axis=1, initial=0) > 0
        chosen = q[known].argmax(axis=1)
        q[labelled] = as_sure_as(q[labelled], float(p[known].max(axis=1).mean()), known[labelled])
        kept = p[known]
        rows, before = np.arange(len(chosen)), kept.argmax(axis=1)
        kept[rows, before], kept[rows, chosen] = kept[rows, chosen], kept[rows, before]
        q[known] = kept
    return q


def mean_field(cloud: SurfelCloud, config: CrfConfig) -> np.ndarray:
    """(N, C) float32 the field's marginals after its iterations.

    Energy: -log(p + 1e-12) a surfel, Potts between neighbours. Surfels without a class get one where a chain of
    neighbours leads to a surfel that has one, else they stay without (zero).
    """
    p = cloud.class_probabilities
    if p is None:
        raise ValueError("the map has no class probabilities to refine; relabel it first")
    neighbours = nearest_neighbours(cloud.positions, config.neighbours)
    weights = pair_weights(cloud, neighbours, config)
    known = p.max(axis=1, initial=0) > 0
    q = np.where(known[:, None], p, f32(1 / max(p.shape[1], 1))).astype(f32)
    evidence = np.log(q + f32(LEAST))
    out = np.empty_like(q)
    for _ in range(config.iterations):
        _iterate(neighbours, weights, evidence, q, out)
        q, out = out, q
    still_even = ~known & (q.max(axis=1, initial=0) - q.min(axis=1, initial=1) < 1e-6)
    q[still_even] = 0
    return q


def as_sure_as(probabilities: np.ndarray, mean: float, rows: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) to the one power, at most 1, at which the largest of `rows` (N,) bool are `mean` on average.

    Mean-field iterations count what neighbours repeat as if each had seen it for itself (Kraehenbuehl and Koltun 2011
    aim at the best class, not at its probability): nearly all of their probabilities are 0 or 1. Classes stay the same.
    """

    def at(part: np.ndarray, power: float) -> np.ndarray:
        logarithms = np.log(np.maximum(part, f32(1e-30)))
        logarithms -= logarithms.max(axis=1, keepdims=True, initial=-70)
        powers = np.exp(f32(power) * logarithms)
        return powers / powers.sum(axis=1, keepdims=True)

    # by blocks of rows, so that a large map needs no second array of its size
    blocks = [slice(first, first + AT_ONCE) for first in range(0, len(probabilities), AT_ONCE)]

    def sureness(power: float) -> np.floating:
        return np.concatenate([at(probabilities[b][rows[b]], power).max(axis=1, initial=0) for b in blocks]).mean()

    low, high = 0.0, 1.0
    for _ in range(12 if sureness(high) > mean else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if sureness(middle) > mean else (middle, high)
    found = np.empty_like(probabilities)
    for b in blocks:
        found[b] = at(probabilities[b], high)
    return found
