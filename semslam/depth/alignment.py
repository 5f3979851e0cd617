"""Predicted depth brought to depths that are known at some of its pixels: scale and shift, then a smooth field."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numba as nb
import numpy as np

from semslam.cholesky import factorise, substitute
from semslam.compiled import SERIAL
from semslam.robust import MAD_TO_STD, weighted_median

SMALLEST = 0.2  # metres; no correction brings depth nearer
ITERATIONS = 10  # of the robust fit of scale and shift
# The Gaussian process of `smooth_correction`:
REACH = 0.125  # widths of the image
AMPLITUDE = 0.2  # standard deviation of the log ratio
NOISE = 0.05  # standard deviation of a measurement of weight 1
CELLS = 40  # columns of the grid on which it is computed


@dataclass(frozen=True, eq=False)
class KnownDepths:
    """Depths at pixels, from triangulation or from the map's view."""

    pixels: np.ndarray  # (N, 2) (u, v)
    depths: np.ndarray  # (N,) metres
    weights: np.ndarray  # (N,) relative to one sure measurement

    def __len__(self) -> int:
        return len(self.depths)

    def joined(self, other: KnownDepths) -> KnownDepths:
        """Both."""
        return KnownDepths(
            np.concatenate([self.pixels, other.pixels]),
            np.concatenate([self.depths, other.depths]),
            np.concatenate([self.weights, other.weights]),
        )


@dataclass(frozen=True)
class ScaleShift:
    """depth -> scale * depth + shift."""

    scale: float = 1.0
    shift: float = 0.0  # metres

    def __call__(self, depth: np.ndarray) -> np.ndarray:
        """The corrected depth, at least SMALLEST."""
        return np.maximum(self.scale * depth + self.shift, SMALLEST)


def at_pixels(image: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(N,) float64 values of an image (H, W) at pixels (N, 2), bilinear."""
    if len(pixels) == 0:
        return np.zeros(0)
    u, v = (np.ascontiguousarray(pixels[:, k], np.float32)[:, None] for k in (0, 1))
    return cv2.remap(image, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE).ravel().astype(np.float64)


def fit_scale_shift(
    predicted: np.ndarray,
    known: np.ndarray,
    weights: np.ndarray,
    prior: ScaleShift | None = None,
    prior_std: tuple[float, float] = (0.3, 0.5),
    independent: float = 20.0,
) -> ScaleShift:
    """The scale and shift that bring predicted depths (N,) to known ones (N,), metres.

    Least squares of relative errors with Cauchy weights, whose width follows the errors' median, pulled towards the
    prior: its standard deviations are those of the scale and, in metres, of the shift. The errors of a network at
    neighbouring pixels are alike, so that all of the pixels together count as at most `independent` measurements;
    few and contradictory ones therefore cannot carry the depth away.
    """
    prior = prior or ScaleShift()
    centre = np.array([prior.scale, prior.shift])
    precision = np.diag(1 / np.square(prior_std))
    if len(known) == 0:
        return prior
    rows = np.column_stack([predicted, np.ones(len(predicted))]) / known[:, None]
    share = weights * min(1.0, independent / max(float(weights.sum()), 1e-9))
    estimate = centre * weighted_median(known / prior(predicted), weights)
    smallest = 0.02 + 1 / len(known)  # of few measurements the median error says little
    for _ in range(ITERATIONS):
        residuals = rows @ estimate - 1
        apart = residuals - weighted_median(residuals, weights)  # what all of them say is no outlier
        width = max(MAD_TO_STD * weighted_median(np.abs(apart), weights), smallest)
        robust = share / (1 + np.square(apart / (1.5 * width))) / width**2
        information = rows.T @ (rows * robust[:, None]) + precision
        estimate = np.linalg.solve(information, rows.T @ robust + precision @ centre)
    scale, shift = np.clip(estimate, (0.05, -5.0), (20.0, 5.0))
    return ScaleShift(float(scale), float(shift))


def smooth_correction(
    pixels: np.ndarray, log_ratios: np.ndarray, weights: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """(H, W) float32 smooth field through log ratios (N,) at pixels (N, 2): known over predicted depth.

    The mean of a Gaussian process whose covariance is AMPLITUDE^2 exp(-r^2 / 2 REACH^2), r in widths of the image;
    away from what is known it falls to 0. A measurement of weight w has the standard deviation NOISE / sqrt(w), and
    one that its neighbours contradict loses weight (Cauchy, three rounds).
    """
    height, width = shape
    if len(log_ratios) == 0:
        return np.zeros(shape, np.float32)
    places = np.asarray(pixels, np.float64) / width
    values = np.clip(np.asarray(log_ratios, np.float64), -0.7, 0.7)
    variance = NOISE**2 / np.maximum(np.asarray(weights, np.float64), 1e-3)
    rows = max(2, round(CELLS * height / width))
    field = np.zeros((rows, CELLS), np.float32)
    v, u = ((np.arange(n) + 0.5) / n * size - 0.5 for n, size in ((rows, height), (CELLS, width)))
    _process_mean(places, values, variance, u / width, v / width, field)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)


@nb.njit(**SERIAL)
def _process_mean(places, values, variance, u, v, field):
    """The mean of the process at the grid of u (columns) and v (rows), into `field`.

    On one thread: a few hundred unknowns are done before a library's threads have met, and the result does not depend
    on how many they are.
    """
    n = len(values)
    scale = -0.5 / (REACH * REACH)
    K = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            du, dv = places[i, 0] - places[j, 0], places[i, 1] - places[j, 1]
            K[i, j] = K[j, i] = AMPLITUDE * AMPLITUDE * np.exp(scale * (du * du + dv * dv))
    robust = np.ones(n)
    solved = np.zeros(n)
    for _ in range(3):
        A = K.copy()
        for i in range(n):
            A[i, i] += variance[i] / robust[i]
        factorise(A)  # which a covariance with noise on its diagonal always can be
        solved[:] = values
        substitute(A, solved)
        for i in range(n):
            off = variance[i] / robust[i] * solved[i] / np.sqrt(variance[i])  # value - mean, in standard deviations
            robust[i] = 1 / (1 + 0.25 * off * off)
    for row in range(len(v)):
        for column in range(len(u)):
            total = 0.0
            for i in range(n):
                du, dv = places[i, 0] - u[column], places[i, 1] - v[row]
                total += solved[i] * np.exp(scale * (du * du + dv * dv))
            field[row, column] = AMPLITUDE * AMPLITUDE * total
