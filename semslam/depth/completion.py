"""A network's depth bent to depths that are known at some pixels: smooth where the surface is, free at its edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numba as nb
import numpy as np

from semslam.compiled import SERIAL
from semslam.config import Iterations, Positive, check_ranges

f32 = np.float32


@dataclass(frozen=True)
class CompletionConfig:
    """How stiff the correction of the predicted depth is. Logarithms of ratios throughout."""

    stiffness: Positive = 0.02  # standard deviation of the correction's difference between neighbouring pixels
    edge: Positive = 0.05  # relative jump of the predicted depth that makes a neighbour a stranger
    contrast: Positive = 2.0  # grey levels between neighbours that make a jump count 1.4 times
    prior_std: Positive = 0.25  # of the correction itself, far from all that is known
    sweeps: Iterations = 12  # of the solver, on each level of its pyramid

    def __post_init__(self) -> None:
        check_ranges(self, "slam.multiview.completion")


@dataclass(frozen=True, eq=False)
class CompletedDepth:
    """Depth at every pixel. Both images are (H, W) float32."""

    depth: np.ndarray  # metres along z
    log_std: np.ndarray  # standard deviation of its logarithm

    @cached_property
    def median(self) -> float:
        """Of the depth, metres."""
        return float(np.median(self.depth))


def complete(
    predicted: np.ndarray,
    known: np.ndarray,
    log_std: np.ndarray,
    grey: np.ndarray,
    config: CompletionConfig | None = None,
) -> CompletedDepth:
    """The predicted depth, corrected by a factor that is smooth within surfaces and right where depth is known.

    Minimised over the logarithm r of the factor, with the known one r_k, is
        sum_p (r_p - r_k)^2 / log_std^2 + sum_p r_p^2 / prior_std^2 + sum_pq c_pq (r_p - r_q)^2 / stiffness^2
    over neighbours p, q; c falls from 1 to 0 where the predicted depth jumps, the sooner where the image has an
    edge.

    Args:
        predicted: (H, W) float32 metres, positive.
        known: (H, W) float32 metres, 0 where it is not known.
        log_std: (H, W) float32 of known, the standard deviation of its logarithm; infinite where it is not known.
        grey: (H, W) float32 luminance 0..255.
    """
    c = config or CompletionConfig()
    there = (known > 0) & np.isfinite(log_std)
    weight = np.where(there, 1 / np.maximum(log_std, f32(1e-3)) ** 2, f32(0)).astype(f32)
    value = np.where(there, np.log(np.where(there, known, 1) / predicted), 0).astype(f32)
    levels = [[weight, weight * value, np.log(predicted).astype(f32), grey.astype(f32)]]
    while min(levels[-1][0].shape) > 15:
        levels.append([_halved(image, total=i < 2) for i, image in enumerate(levels[-1])])
    r = np.zeros(levels[-1][0].shape, f32)
    for k, (w, wv, logs, image) in reversed(list(enumerate(levels))):
        if r.shape != w.shape:
            r = cv2.resize(r, w.shape[::-1], interpolation=cv2.INTER_LINEAR)
        # A pixel of level k stands for 4^k, whose priors add up. Its neighbour is 2^k pixels away: the squared
        # difference is 4^k times that of each of the 4^k pairs between them, so the stiffness stays.
        right, down = (link * f32(1 / c.stiffness**2) for link in _links(logs, image, f32(c.edge), f32(c.contrast)))
        _relax(r, w, wv, right, down, f32(4**k / c.prior_std**2), c.sweeps)
    information = np.zeros_like(weight)
    _spread_information(weight, right, down, f32(1 / c.prior_std**2), information)
    return CompletedDepth(predicted * np.exp(r), 1 / np.sqrt(information))


def everywhere(depth: np.ndarray) -> np.ndarray:
    """Depth (H, W), some of it positive; where it is 0 that of the nearest pixel."""
    known = depth > 0
    if known.all():
        return depth
    _, nearest = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(nearest.max() + 1, depth.dtype)
    of_label[nearest[known]] = depth[known]
    return of_label[nearest]


def _halved(image: np.ndarray, total: bool) -> np.ndarray:
    """An image of half the size: sums of four pixels, or their means."""
    height, width = image.shape
    if height % 2 or width % 2:
        image = np.pad(image, ((0, height % 2), (0, width % 2)), mode="constant" if total else "edge")
    upper, lower = image[::2], image[1::2]
    four = (upper[:, ::2] + upper[:, 1::2]) + (lower[:, ::2] + lower[:, 1::2])
    return four if total else four / f32(4)


def _links(logs: np.ndarray, grey: np.ndarray, edge: np.float32, contrast: np.float32) -> tuple[np.ndarray, np.ndarray]:
    """How much each pixel has to do with its right and with its lower neighbour, 0..1; 0 at the image's end.

    An edge of the image alone cuts nothing: it may be painted, and what is behind it would know no depth. A network
    blurs jumps of depth, so that one small step of many counts where the image has an edge.
    """
    right, down = np.zeros((2, *logs.shape), f32)
    for axis, link in ((1, right[:, :-1]), (0, down[:-1])):
        jump, step = np.abs(np.diff(logs, axis=axis)) / edge, np.abs(np.diff(grey, axis=axis)) / contrast
        link[:] = 1 / (1 + jump**2 * (1 + step**2))
    return right, down


@nb.njit(**SERIAL)
def _relax(r, weight, weighted, right, down, prior, sweeps):
    """Red-black successive over-relaxation of the normal equations, in place."""
    height, width = r.shape
    for sweep in range(2 * sweeps):
        for v in range(height):
            for u in range((v + sweep) & 1, width, 2):
                total, pull = weight[v, u] + prior, weighted[v, u]
                if u > 0:
                    total += right[v, u - 1]
                    pull += right[v, u - 1] * r[v, u - 1]
                if u + 1 < width:
                    total += right[v, u]
                    pull += right[v, u] * r[v, u + 1]
                if v > 0:
                    total += down[v - 1, u]
                    pull += down[v - 1, u] * r[v - 1, u]
                if v + 1 < height:
                    total += down[v, u]
                    pull += down[v, u] * r[v + 1, u]
                r[v, u] += f32(1.6) * (pull / total - r[v, u])


@nb.njit(**SERIAL)
def _spread_information(weight, right, down, prior, information):
    """What each pixel knows: its own measurement, or the best one that reaches it through the links.

    A bound from below of the inverse variance. What a pixel that knows i tells a neighbour over a link of stiffness c
    is i c / (i + c), as conductors in series; the best way is found by scanning the image to and fro.
    """
    height, width = weight.shape
    information[:] = weight
    for scan in range(4):
        for a in range(height):
            v = a if scan % 2 == 0 else height - 1 - a
            for b in range(width):
                u = b if scan % 2 == 0 else width - 1 - b
                best = information[v, u]
                if u > 0:
                    best = max(best, _in_series(information[v, u - 1], right[v, u - 1]))
                if u + 1 < width:
                    best = max(best, _in_series(information[v, u + 1], right[v, u]))
                if v > 0:
                    best = max(best, _in_series(information[v - 1, u], down[v - 1, u]))
                if v + 1 < height:
                    best = max(best, _in_series(information[v + 1, u], down[v, u]))
                information[v, u] = best
    information += prior


@nb.njit(inline="always")
def _in_series(a, b):
    return a * b / (a + b) if a + b > f32(0) else f32(0)
