"""Depth of one image from other images with known poses: a plane sweep around a network's depth.

The candidates of a pixel are multiples of the depth that a network predicts there, so that the swept surfaces have the
network's shape and a window of pixels is warped as that surface is slanted. Each candidate is judged by the normalised
cross-correlation with the best of the other images (the rest may be occluded), the judgements are aggregated along
eight paths (Hirschmuller, "Stereo Processing by Semiglobal Matching and Mutual Information", PAMI 2008), and what wins
is kept where it wins clearly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.config import Correlation, Count, NotNegative, Positive, Range, check_ranges
from semslam.depth.plane_sweep_kernels import (
    Candidates,
    Limits,
    Matching,
    Views,
    Winners,
    aggregate,
    match,
    packed,
    select,
)

f32 = np.float32


@dataclass(frozen=True)
class SweepConfig:
    """How depth is searched, and when a depth that was found is believed."""

    nearest: Positive = 0.5  # of the predicted depth: the first candidate ...
    farthest: Positive = 2.0  # ... and the last
    candidates: Annotated[int, Range(3, 1000)] = 48  # depths that are tried for each pixel
    half_window: Annotated[int, Range(1, 50)] = 3  # pixels
    best_of: Count = 3  # other images that a candidate is judged by: those that agree best
    noise: Positive = 2.0  # grey levels; windows with less contrast say little
    small_step: NotNegative = 0.03  # cost of one candidate's difference between neighbouring pixels ...
    large_step: NotNegative = 0.25  # ... and of a larger one, where the image shows no edge
    edge: Positive = 12.0  # grey levels between neighbours that halve the cost of a larger step
    min_correlation: Correlation = 0.6  # of the winning windows, from which a depth is believed
    scatter_window: Annotated[int, Range(1, 501)] = 11  # pixels along a side: the scatter of what was found there ...
    scatter_share: NotNegative = 0.5  # ... counts, by this share of its standard deviation, as doubt of each pixel ...
    range_share: NotNegative = 0.1  # ... and this share of the logarithm of farthest to nearest depth in it, likewise
    min_margin: NotNegative = 0.03  # of the aggregated cost, to the best candidate elsewhere

    def __post_init__(self) -> None:
        check_ranges(self, "sweep")
        if self.nearest >= self.farthest:
            raise ValueError(f"`sweep.nearest` is {self.nearest}, expected less than `farthest`, {self.farthest}")


@dataclass(frozen=True, eq=False)
class SweptDepth:
    """What a sweep found. All images are (H, W) float32."""

    depth: np.ndarray  # metres along z, 0 where nothing is believed
    log_std: np.ndarray  # standard deviation of its logarithm; infinite where nothing is believed


def sweep(
    grey: np.ndarray,
    camera: Camera,
    others: Sequence[np.ndarray],
    T_other_camera: Sequence[np.ndarray],
    predicted: np.ndarray,
    config: SweepConfig | None = None,
) -> SweptDepth:
    """The depth of an image by its parallax to others of the same camera.

    Args:
        grey: (H, W) float32 luminance 0..255 of the image.
        others: the same of the other images, at least one.
        T_other_camera: (4, 4) each, from the image's camera to the other's, metres.
        predicted: (H, W) float32 metres, positive: the depth around which is searched.
    """
    c = config or SweepConfig()
    K, K_inverse = camera.K, np.linalg.inv(camera.K)
    views = Views(
        np.stack([packed(other) for other in others]),
        np.stack([K @ T[:3, :3] @ K_inverse for T in T_other_camera]).astype(f32),
        np.stack([K @ T[:3, 3] for T in T_other_camera]).astype(f32),
    )
    grey, predicted = np.ascontiguousarray(grey, f32), np.ascontiguousarray(predicted, f32)
    logs = np.linspace(np.log(c.nearest), np.log(c.farthest), c.candidates)
    cost = np.empty((*grey.shape, c.candidates), f32)
    matching = Matching(c.half_window, min(c.best_of, len(others)), f32(c.noise**2))
    match(grey, views, predicted, np.exp(logs).astype(f32), matching, cost)
    total = np.zeros((3, *cost.shape), f32)
    aggregate(cost, grey, f32(c.small_step), f32(c.large_step), f32(c.edge), total)
    found = Winners(np.empty(grey.shape, f32), np.empty(grey.shape, f32))
    candidates = Candidates(f32(logs[0]), f32(logs[1] - logs[0]))
    select(cost, total, candidates, Limits(f32(c.min_correlation), f32(c.min_margin)), found)
    there = np.isfinite(found.log_std)
    scatter = c.scatter_share * _scatter(found.log_ratio, there, c.scatter_window)
    depth = np.where(there, predicted * np.exp(found.log_ratio), f32(0))
    doubt = np.hypot(scatter, c.range_share * _log_range(np.where(there, depth, predicted), c.scatter_window))
    return SweptDepth(depth, np.hypot(found.log_std, doubt))


def _scatter(values: np.ndarray, there: np.ndarray, window: int) -> np.ndarray:
    """(H, W) float32: the standard deviation of the values that are there in the window around each pixel.

    Windows at the edge of something near fit the edge, not the surface behind it: there neighbours disagree.
    """
    counted = there.astype(f32)
    values = np.where(there, values, f32(0))
    count, total, squares = (cv2.blur(image, (window, window)) for image in (counted, values, values**2))
    mean = total / np.maximum(count, f32(1e-6))
    return np.sqrt(np.maximum(squares / np.maximum(count, f32(1e-6)) - mean**2, f32(0)))


def _log_range(depth: np.ndarray, window: int) -> np.ndarray:
    """(H, W) float32: the logarithm of the largest to the smallest depth in the window around each pixel.

    Beside a jump of depth, pixels without texture of their own are matched by the edge, which belongs to what is near.
    """
    around = np.ones((window, window), np.uint8)
    return np.log(cv2.dilate(depth, around) / cv2.erode(depth, around))
