"""Holes in a depth camera's images, filled: by parallax where the images tell, else by a network's shape.

A part of what the camera did measure is hidden from the filling, and tells how well it fills.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera, depth_std
from semslam.depth.multiview import MultiViewDepth
from semslam.depth.plane_sweep import SweptDepth
from semslam.engine.depth_filter import Noise
from semslam.frame import Observation
from semslam.images.resizing import resized_depth
from semslam.robust import MAD_TO_STD
from semslam.stage import Stage

f32 = np.float32
DISCS, LARGEST = 6, 0.06  # that are hidden in an image, and the radius of the largest in the image's width
CONTRADICTIONS = 2  # frames that measure something where a filled surfel is, or behind it, from which it goes


@dataclass
class FillCounts:
    """How much was filled, and how well measured pixels were that were hidden from the filling."""

    pixels: int = 0  # of all keyframes
    holes: int = 0  # of them, those without depth ...
    filled: int = 0  # ... and those of these whose depth was found, be it that the map shows something there already
    hidden: int = 0  # measured pixels that were hidden ...
    sure: int = 0  # ... and those of these that were filled
    errors: list[np.ndarray] = field(default_factory=list)  # metres, of those
    deviations: list[np.ndarray] = field(default_factory=list)  # likewise, in the standard deviations that were told

    def add(self, found: SweptDepth, truth: np.ndarray, hidden: np.ndarray) -> None:
        """Count a frame. found: what was sure enough, else 0; truth: (H, W) metres; hidden: (H, W) bool."""
        sure = hidden & (found.depth > 0)
        self.hidden, self.sure = self.hidden + int(hidden.sum()), self.sure + int(sure.sum())
        self.errors.append(np.abs(found.depth - truth)[sure])
        self.deviations.append(np.abs(np.log(found.depth[sure] / truth[sure])) / found.log_std[sure])

    def figures(self) -> dict[str, float | None]:
        """Shares and errors under stable names; None where nothing was hidden or nothing filled."""
        errors, deviations = (np.concatenate([np.zeros(0), *x]) for x in (self.errors, self.deviations))
        return {
            "fill_holes_share": self.holes / self.pixels if self.pixels else None,
            "fill_filled_share": self.filled / self.holes if self.holes else None,
            "fill_hidden_share": self.sure / self.hidden if self.hidden else None,
            "fill_hidden_mean_m": float(errors.mean()) if len(errors) else None,
            "fill_hidden_median_m": float(np.median(errors)) if len(errors) else None,
            "fill_hidden_deviation": MAD_TO_STD * float(np.median(deviations)) if len(deviations) else None,
        }


class HoleFilling(Stage):
    """Gives keyframes depth where the sensor and the map have none; for the `correct` of a `Slam` of its own.

    That Slam's map holds what is filled, and nothing else: where the sensor measured, its depth only says with
    confidence 0 what is empty space.
    """

    def __init__(self, views: MultiViewDepth, noise: Noise, shown: Callable[[np.ndarray], np.ndarray]) -> None:
        """views: of the same recording. noise: of the sensor. shown: T_world_camera (4, 4) -> depth (H, W) of the map
        of what was measured, metres, infinite where it shows nothing."""
        self.views, self.noise, self.shown = views, noise, shown
        self.counts = FillCounts()
        self.keyframes: list[tuple[int, np.ndarray]] = []  # indices and T_world_camera (4, 4); all depths are too many
        self.without_parallax = 0  # frames that too few others show from elsewhere

    def __call__(self, observation: Observation, predict: object) -> Observation:
        """The sensor's depth with holes filled, and the confidence of what is; no depth where nothing is filled.

        observation: with the network's depth.
        """
        frame, views = observation.frame, self.views
        none = replace(observation, depth=np.zeros_like(observation.depth), confidence=None)
        T = views.T_world_camera[frame.index]
        if frame.depth is None or T is None or not views.has_moved(frame.index):
            return none
        sensed = with_doubt(_resized(frame.depth, views.camera), self.noise)
        hidden = discs(sensed.depth.shape, np.random.default_rng(frame.index)) & (sensed.depth > 0)
        offered = SweptDepth(np.where(hidden, f32(0), sensed.depth), np.where(hidden, f32(np.inf), sensed.log_std))
        found = views.measured(frame.index, observation.color, observation.depth, offered)
        if found is None:
            self.without_parallax += 1
            return none
        views.advance(frame.index, found)
        sure = found.log_std <= views.config.max_std
        self.counts.add(SweptDepth(np.where(sure, found.depth, f32(0)), found.log_std), sensed.depth, hidden)
        depth, confidence = views.weighed(found)
        recorded = _resized(frame.depth, observation.camera)
        hole = recorded <= 0
        confidence = np.where(observation.depth > 0, confidence, f32(0))  # 0 at the border that perception leaves out
        fills = hole & (confidence > 0) & ~np.isfinite(self.shown(T))
        self.counts.holes += int(hole.sum())
        self.counts.filled += int((hole & (confidence > 0)).sum())
        self.counts.pixels += hole.size
        self.keyframes.append((frame.index, T))
        return replace(
            observation,
            depth=np.where(hole, np.where(fills, depth, f32(0)), recorded),
            confidence=np.where(fills, confidence, f32(0)),
        )

    def contradicted(self, positions: np.ndarray, depth_of: Callable[[int], np.ndarray]) -> np.ndarray:
        """(N,) bool: which world points (N, 3) lie where the sensor measured, or before that, in several keyframes.

        depth_of: index of a frame -> (H, W) float32 metres, as recorded.
        """
        camera, count = self.views.map_camera, np.zeros(len(positions), int)
        for index, T_world_camera in self.keyframes:
            depth = _resized(depth_of(index), camera)
            points = poses.transform(poses.inverse(T_world_camera), positions)
            ahead = np.flatnonzero(points[:, 2] > 0.05)
            u, v = np.rint(camera.project(points[ahead])).astype(int).T
            inside = (u >= 0) & (v >= 0) & (u < camera.width) & (v < camera.height)
            ahead, measured = ahead[inside], depth[v[inside], u[inside]]
            room = 3 * sigma_of(measured, self.noise) + 0.02
            count[ahead[(measured > 0) & (points[ahead, 2] < measured + room)]] += 1
        return count >= CONTRADICTIONS


def sigma_of(depth: Any, noise: Noise) -> Any:
    """The standard deviation, metres, of a sensor's depth: an array or a number, metres."""
    return depth_std(depth, noise.base, noise.quadratic)


def with_doubt(depth: np.ndarray, noise: Noise) -> SweptDepth:
    """A sensor's depth (H, W), metres, 0 = none, with the standard deviation of its logarithm."""
    there = depth > 0
    sigma = sigma_of(depth, noise)
    return SweptDepth(depth, np.where(there, sigma / np.where(there, depth, 1), f32(np.inf)).astype(f32))


def discs(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """(H, W) bool: a few discs of various sizes."""
    height, width = shape
    image = np.zeros(shape, np.uint8)
    for _ in range(DISCS):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(image, centre, max(2, int(LARGEST * width * rng.uniform(0.2, 1))), 1, -1)
    return image > 0


def _resized(depth: np.ndarray, camera: Camera) -> np.ndarray:
    return resized_depth(depth, (camera.width, camera.height))
