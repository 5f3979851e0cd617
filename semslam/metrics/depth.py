"""How far predicted depth is from the truth.

The figures are those of Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network",
NeurIPS 2014, with p predicted and g true depth in metres over the valid pixels:
RMSE sqrt(mean (p-g)^2), RMSE log sqrt(mean (ln p - ln g)^2), abs rel mean |p-g|/g, sqr rel mean (p-g)^2/g,
log10 mean |log10 p - log10 g|, SILog 100 sqrt(mean d^2 - (mean d)^2) with d = ln p - ln g,
delta_k the fraction with max(p/g, g/p) < 1.25^k.

Papers differ in the pixels that count (crop, cap) and in the pooling (over all pixels of the set, or the mean of the
figures of each image); a `DepthProtocol` names the one, the two results of `DepthErrors` the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST = 1e-3  # metres; predictions are raised to it before a logarithm or a ratio


@dataclass(frozen=True)
class DepthProtocol:
    """Which pixels count.

    `crop` is (top, bottom, left, right) as fractions of the height and width, so that it serves truth of any
    resolution. With a `cap` only truth in (0.001, cap) counts and predictions are clipped to that range, as in the
    evaluations of monodepth and BTS.
    """

    name: str
    crop: tuple[float, float, float, float] = (0.0, 1.0, 0.0, 1.0)
    cap: float | None = None  # metres


NYU_CROP = (45 / 480, 471 / 480, 41 / 640, 601 / 640)  # rows 45..470, columns 41..600 of 640x480
KITTI_GARG_CROP = (0.40810811, 0.99189189, 0.03594771, 0.96405229)
KITTI_EIGEN_CROP = (0.3324324, 0.91351351, 0.0359477, 0.96405229)

WHOLE = DepthProtocol("whole frame, no cap")
PROTOCOLS: dict[str, DepthProtocol] = {  # by the suffix that names them in flat results
    "": WHOLE,
    "_eigen_crop": DepthProtocol("Eigen crop, no cap", NYU_CROP),
    "_cap10": DepthProtocol("whole frame, cap 10 m", cap=10.0),
    "_eigen_crop_cap10": DepthProtocol("Eigen crop, cap 10 m", NYU_CROP, cap=10.0),
}
KITTI_PROTOCOLS: dict[str, DepthProtocol] = {
    "": WHOLE,
    "_cap80": DepthProtocol("whole frame, cap 80 m", cap=80.0),
    "_garg_crop_cap80": DepthProtocol("Garg crop, cap 80 m", KITTI_GARG_CROP, cap=80.0),
    "_eigen_crop_cap80": DepthProtocol("Eigen's KITTI crop, cap 80 m", KITTI_EIGEN_CROP, cap=80.0),
}


@dataclass(frozen=True)
class DepthScores:
    """The usual figures; metres where a unit applies, NaN where no pixel is valid."""

    protocol: str
    rmse: float  # m
    rmse_log: float  # of natural logarithms
    abs_rel: float
    sqr_rel: float  # m
    log10: float
    silog: float  # 100 times the standard deviation of ln p - ln g
    delta1: float
    delta2: float
    delta3: float
    pixels: int
    images: int


FIGURES = ("rmse", "rmse_log", "abs_rel", "sqr_rel", "log10", "silog", "delta1", "delta2", "delta3")


def crop_slices(crop: tuple[float, float, float, float], height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a crop given as fractions, truncated to whole pixels."""

    def whole(fraction: float, size: int) -> int:
        return int(fraction * size + 1e-9)  # 471 / 480 * 480 must be 471

    top, bottom, left, right = crop
    return slice(whole(top, height), whole(bottom, height)), slice(whole(left, width), whole(right, width))


class DepthErrors:
    """Sums over the valid pixels of each image added; true depth 0 (none) or not finite is invalid."""

    def __init__(self, protocol: DepthProtocol = WHOLE) -> None:
        self.protocol = protocol
        self._sums: list[np.ndarray] = []  # one row an image, the columns of _sums_of

    def add(self, prediction: np.ndarray, truth: np.ndarray) -> None:
        """Count one pair of depth images (H, W) in metres."""
        if prediction.shape != truth.shape:
            raise ValueError(f"the prediction is {prediction.shape}, the truth {truth.shape}; resize one of them first")
        for name, depth in (("prediction", prediction), ("truth", truth)):
            if depth.ndim != 2 or not np.issubdtype(depth.dtype, np.floating):
                raise ValueError(
                    f"the {name} is {depth.shape} {depth.dtype}, expected (H, W) float metres; divide "
                    f"whole millimetres by 1000"
                )
        window = crop_slices(self.protocol.crop, *truth.shape)
        prediction, truth = prediction[window], truth[window]
        valid = np.isfinite(truth) & (truth > 0)
        if self.protocol.cap is not None:
            valid &= (truth > SMALLEST) & (truth < self.protocol.cap)
        p, g = prediction[valid].astype(np.float64), truth[valid].astype(np.float64)
        if self.protocol.cap is not None:
            p = np.clip(p, SMALLEST, self.protocol.cap)
        if not np.isfinite(p).all():
            raise ValueError("the predicted depth holds NaN or infinity where the truth is valid")
        self._sums.append(_sums_of(p, g))

    def pooled(self) -> DepthScores:
        """Figures over all valid pixels of the set at once."""
        sums = np.sum(self._sums, axis=0) if self._sums else np.zeros(_COLUMNS)
        figures = _figures(sums[None])[0]
        return self._scores(figures, "pooled over valid pixels")

    def mean_of_images(self) -> DepthScores:
        """The mean of each image's own figures; images without a valid pixel are left out."""
        rows = np.array([row for row in self._sums if row[0] > 0]).reshape(-1, _COLUMNS)
        figures = _figures(rows).mean(axis=0) if len(rows) else np.full(len(FIGURES), np.nan)
        return self._scores(figures, "mean of images")

    def _scores(self, figures: np.ndarray, pooling: str) -> DepthScores:
        pixels = int(sum(row[0] for row in self._sums))
        images = sum(row[0] > 0 for row in self._sums)
        named = {name: float(value) for name, value in zip(FIGURES, figures)}
        return DepthScores(f"{self.protocol.name}, {pooling}", **named, pixels=pixels, images=int(images))


_COLUMNS = 10


def _sums_of(p: np.ndarray, g: np.ndarray) -> np.ndarray:
    """(10,) sums over pixels: count, e^2, d^2, |e|/g, e^2/g, |d|, d, and the three deltas."""
    squared = (p - g) ** 2
    safe = np.maximum(p, SMALLEST)
    d = np.log(safe) - np.log(g)
    ratio = np.maximum(safe / g, g / safe)
    terms = (squared, d**2, np.abs(p - g) / g, squared / g, np.abs(d), d, *(ratio < 1.25**k for k in (1, 2, 3)))
    return np.array([len(p), *(term.sum() for term in terms)])


def _figures(sums: np.ndarray) -> np.ndarray:
    """(N, 9) figures in the order of DepthScores from (N, 10) sums."""
    with np.errstate(invalid="ignore"):
        squared, log_squared, relative, squared_relative, log_absolute, log_sum, *deltas = (sums / sums[:, :1]).T[1:]
    variance = np.maximum(log_squared - log_sum**2, 0)  # NaN stays NaN
    return np.stack(
        [
            np.sqrt(squared),
            np.sqrt(log_squared),
            relative,
            squared_relative,
            log_absolute / np.log(10),
            100 * np.sqrt(variance),
            *deltas,
        ],
        axis=1,
    )
