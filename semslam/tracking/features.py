"""Sparse features: what carries a pose where registration cannot, over a jerk, a covered lens, or to another day.

Corners with binary descriptors (ORB: Rublee et al., ICCV 2011), each with its depth where there is any. A pose follows
from the points of one image found again in the pixels of another (P3P in RANSAC, refined on its inliers).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.frame import Observation

COUNT = 600  # features of an image, at most
RATIO = 0.8  # of the best match's distance to the second best's (Lowe 2004)
PIXELS = 4.0  # reprojection error of an inlier, at most
BYTES = 32  # of a descriptor
SAMPLERS = {4: cv2.SOLVEPNP_AP3P, 5: cv2.SOLVEPNP_ITERATIVE}  # by how many points a pose is computed from


@dataclass(frozen=True, eq=False)
class Features:
    """Corners of one image."""

    pixels: np.ndarray  # (N, 2) float32 u, v
    points: np.ndarray  # (N, 3) float32 metres, camera frame; z = 0 where there is no depth
    descriptors: np.ndarray  # (N, BYTES) uint8

    def __len__(self) -> int:
        return len(self.pixels)

    @staticmethod
    def none() -> Features:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 3), np.float32), np.zeros((0, BYTES), np.uint8))


@dataclass(frozen=True, eq=False)
class FeaturePose:
    """A pose found from features."""

    T_known_live: np.ndarray  # (4, 4)
    inliers: int
    matches: int
    spread: float  # share of the image, along its less covered side, over which the inliers reach

    @property
    def believable(self) -> bool:
        """Whether so many matches would hardly agree by chance."""
        return self.inliers >= 20 and self.inliers >= 0.3 * self.matches and self.spread >= 0.15


def features_of(color: np.ndarray, depth: np.ndarray | None, camera: Camera, count: int = COUNT) -> Features:
    """The features of an image (H, W, 3) uint8 RGB with depth (H, W) in metres, 0 or None = unknown."""
    grey = color if color.ndim == 2 else cv2.cvtColor(color, cv2.COLOR_RGB2GRAY)
    detector = cv2.ORB_create(count, scaleFactor=1.3, nlevels=6, fastThreshold=8)  # type: ignore[attr-defined]
    keypoints, descriptors = detector.detectAndCompute(grey, None)
    if not keypoints:
        return Features.none()
    pixels = np.array([keypoint.pt for keypoint in keypoints], np.float32)
    points = np.zeros((len(pixels), 3), np.float32)
    if depth is not None:
        u, v = np.rint(pixels).astype(int).T
        z = depth[np.clip(v, 0, depth.shape[0] - 1), np.clip(u, 0, depth.shape[1] - 1)]
        points[:, 0] = (pixels[:, 0] - camera.cx) / camera.fx * z
        points[:, 1] = (pixels[:, 1] - camera.cy) / camera.fy * z
        points[:, 2] = z
    return Features(pixels, points, descriptors)


def packed(features: Sequence[Features]) -> dict[str, np.ndarray]:
    """The features of several images as arrays, to be kept; for `unpacked`."""
    several = [Features.none(), *features]
    return {
        "counts": np.array([len(some) for some in features], np.int64),
        "pixels": np.concatenate([some.pixels for some in several]),
        "points": np.concatenate([some.points for some in several]),
        "descriptors": np.concatenate([some.descriptors for some in several]),
    }


def unpacked(arrays: dict[str, np.ndarray]) -> list[Features]:
    """The features of several images from their `packed` arrays."""
    ends = np.cumsum(arrays["counts"])[:-1]
    parts = (np.split(arrays[name], ends) for name in ("pixels", "points", "descriptors"))
    return [Features(*some) for some in zip(*parts)] if len(arrays["counts"]) else []


def matches_between(known: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of descriptors (N, BYTES) of both that are each other's best match, and clearly so."""
    if len(known) < 2 or len(live) < 2:
        return np.zeros(0, int), np.zeros(0, int)
    matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
    forward = matcher.knnMatch(live, known, k=2)
    i = np.array([m[0].trainIdx for m in forward])
    best, second = np.array([[m[0].distance, m[1].distance] for m in forward]).T
    clear = np.flatnonzero(best < RATIO * second)
    # of several live features that claim the same one, the most similar
    order = clear[np.argsort(best[clear], kind="stable")]
    _, first = np.unique(i[order], return_index=True)
    chosen = order[first]
    return i[chosen], chosen


def pose_from(known: Features, live: Features, camera: Camera) -> FeaturePose | None:
    """Where the camera of `live` is relative to that of `known`, whose points carry depth; None where nothing tells."""
    with_depth = np.flatnonzero(known.points[:, 2] > 0)
    some = Features(known.pixels[with_depth], known.points[with_depth], known.descriptors[with_depth])
    i, j = matches_between(some.descriptors, live.descriptors)
    if len(i) < 8:
        return None
    return solved(some.points[i], live.pixels[j], camera)


class Sampled(NamedTuple):
    """A pose that many of some points and pixels agree with."""

    T_camera_points: np.ndarray  # (4, 4) float64, from the points' frame to the camera's
    inliers: np.ndarray  # (N,) the numbers of those that agree


def sampled_pose(
    points: np.ndarray,
    pixels: np.ndarray,
    camera: Camera,
    within: float,
    tries: int,
    confidence: float,
    points_a_sample: Literal[4, 5] = 4,
) -> Sampled | None:
    """The pose of a camera that projects points (N, 3) to pixels (N, 2), both float64: RANSAC.

    within: reprojection error of an inlier, pixels. tries, confidence: samples at most, and the probability that one of
    them had no outlier. points_a_sample: 4 by P3P, or 5, which fewer wrong matches agree with by chance. None with
    fewer than 6 inliers.
    """
    sampled = _sampled(points, pixels, camera, within, tries, confidence, SAMPLERS[points_a_sample])
    return None if sampled is None else Sampled(_pose_of(*sampled[:2]), sampled[2])


def _sampled(
    points: np.ndarray, pixels: np.ndarray, camera: Camera, within: float, tries: int, confidence: float, method: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """`sampled_pose` as OpenCV's rotation vector (3, 1) and translation (3, 1), and the numbers of the inliers."""
    ok, rotation, translation, inliers = cv2.solvePnPRansac(
        points, pixels, camera.K, None, iterationsCount=tries, reprojectionError=within, confidence=confidence,
        flags=method,
    )  # fmt: skip
    return (rotation, translation, inliers.ravel()) if ok and inliers is not None and len(inliers) >= 6 else None


def _pose_of(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    return poses.from_rotation_translation(cv2.Rodrigues(rotation)[0], translation.ravel())


def solved(points: np.ndarray, pixels: np.ndarray, camera: Camera) -> FeaturePose | None:
    """The pose T_known_live that projects points (N, 3), known frame, to live pixels (N, 2), most of which agree."""
    points, pixels = points.astype(np.float64), pixels.astype(np.float64)
    if (sampled := _sampled(points, pixels, camera, PIXELS, 200, 0.999, SAMPLERS[4])) is None:
        return None
    rotation, translation, chosen = sampled
    rotation, translation = cv2.solvePnPRefineLM(points[chosen], pixels[chosen], camera.K, None, rotation, translation)
    T_live_known = _pose_of(rotation, translation)
    if not np.isfinite(T_live_known).all():
        return None
    reach = np.ptp(pixels[chosen], axis=0) / (camera.width, camera.height)
    return FeaturePose(poses.inverse(T_live_known), len(chosen), len(points), float(reach.min()))


class Reference:
    """A frame whose pose T_world_camera (4, 4) is beyond doubt; its features are found when they are needed."""

    def __init__(self, T_world_camera: np.ndarray, observation: Observation | None, features: Features | None) -> None:
        """observation: to find the features in, where they are not given."""
        self.T_world_camera = T_world_camera
        # depth is a working image of fusion
        self._observation = None if observation is None else replace(observation, depth=observation.depth.copy())
        self._features = features

    def features(self) -> Features:
        """Those of its image, with depth."""
        if self._features is None:
            assert self._observation is not None
            seen = self._observation
            self._features = features_of(seen.color, seen.depth, seen.camera)
        return self._features

    def state(self) -> dict[str, np.ndarray]:
        """What has to be kept to go on later; for `restored`."""
        return {"pose": self.T_world_camera, **packed([self.features()])}

    @staticmethod
    def restored(state: dict[str, np.ndarray]) -> Reference:
        """The frame whose `state` this is."""
        return Reference(state["pose"], None, unpacked(state)[0])
