"""Predicted depth brought to depths that are known at some of its pixels: scale and shift, then a smooth bend."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

SMALLEST = 0.2  # metres; no correction brings depth nearer


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
    iterations: int = 10,
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
    estimate = centre
    for _ in range(iterations):
        residuals = rows @ estimate - 1
        width = max(1.4826 * float(np.median(np.abs(residuals))), 0.02)
        robust = share / (1 + np.square(residuals / (1.5 * width))) / width**2
        information = rows.T @ (rows * robust[:, None]) + precision
        estimate = np.linalg.solve(information, rows.T @ robust + precision @ centre)
    scale, shift = np.clip(estimate, (0.05, -5.0), (20.0, 5.0))
    return ScaleShift(float(scale), float(shift))


def smooth_bend(
    pixels: np.ndarray,
    log_ratios: np.ndarray,
    weights: np.ndarray,
    shape: tuple[int, int],
    reach: float = 0.125,
    amplitude: float = 0.2,
    noise: float = 0.05,
    cells: int = 40,
) -> np.ndarray:
    """(H, W) float32 smooth field through log ratios (N,) at pixels (N, 2): known over predicted depth.

    The mean of a Gaussian process whose covariance is amplitude^2 exp(-r^2 / 2 reach^2), r in widths of the image;
    away from what is known it falls to 0. A measurement of weight w has the standard deviation noise / sqrt(w), and
    one that its neighbours contradict loses weight (Cauchy, three rounds).
    """
    height, width = shape
    if len(log_ratios) == 0:
        return np.zeros(shape, np.float32)
    places = np.asarray(pixels, np.float64) / width
    values = np.clip(log_ratios, -0.7, 0.7)

    def covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        squared = (a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T
        return amplitude**2 * np.exp(-np.maximum(squared, 0) / (2 * reach**2))

    K = covariance(places, places)
    variance = noise**2 / np.maximum(weights, 1e-3)
    coefficients = np.zeros(len(values))
    robust = np.ones(len(values))
    for _ in range(3):
        noisy = K.copy()
        noisy[np.diag_indices(len(values))] += variance / robust
        coefficients = np.linalg.solve(noisy, values)
        residuals = (K @ coefficients - values) / np.sqrt(variance)
        robust = 1 / (1 + np.square(residuals / 2))
    rows = max(2, round(cells * height / width))
    v, u = np.meshgrid((np.arange(rows) + 0.5) * height / rows - 0.5, (np.arange(cells) + 0.5) * width / cells - 0.5,
                       indexing="ij")  # fmt: skip
    field = covariance(np.column_stack([u.ravel(), v.ravel()]) / width, places) @ coefficients
    return cv2.resize(field.reshape(rows, cells).astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
