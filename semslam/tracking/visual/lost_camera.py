"""A lost camera, found by what keyframes look like: corners matched to theirs, the pose by some of them."""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np

from semslam.tracking.features import matches_between, sampled_pose
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.patches import matched_to_hosts
from semslam.tracking.visual.resection import located
from semslam.tracking.visual.sparse_map import STRIKES, SparseMap

COMPARED = 30  # keyframes that a lost camera is looked for in
CONFIRMED = 0.2  # of the landmarks that a lost camera should see from where it is said to be, which it has to see
WITHIN = 4.0  # pixels: reprojection error of an inlier, at most
TRIES, SURE = 200, 0.99  # of RANSAC, at most, and the probability that one of them had no outlier
SAMPLE: Final = 5  # points; of fewer (P3P) a place in the mirror image of a room is found, too


class Corners(NamedTuple):
    """Corners of an image that can be described."""

    which: np.ndarray  # (N,) their numbers among those that were given
    pixels: np.ndarray  # (N, 2) float32
    descriptors: np.ndarray  # (N, 32) uint8 (ORB), upright


class FoundAgain(NamedTuple):
    """Where a lost camera is, and the landmarks by which it was found."""

    T_camera_world: np.ndarray  # (4, 4)
    ids: np.ndarray  # (N,)
    pixels: np.ndarray  # (N, 2) float32


def described(grey: np.ndarray, pixels: np.ndarray) -> Corners:
    """Those of an image's pixels (N, 2) that can be described."""
    corners = [cv2.KeyPoint(float(u), float(v), 31, 0, 0, 0, n) for n, (u, v) in enumerate(pixels)]
    kept, descriptors = cv2.ORB.create().compute(grey, corners) if corners else ((), None)
    if descriptors is None:
        return Corners(np.zeros(0, np.int64), np.zeros((0, 2), np.float32), np.zeros((0, 32), np.uint8))
    which = np.array([corner.class_id for corner in kept])
    return Corners(which, pixels[which].astype(np.float32), descriptors)


def found_again(world: SparseMap, grey: np.ndarray, config: VisualConfig) -> FoundAgain | None:
    """Where the camera of an image is, by the keyframes of a map; None where they do not tell."""
    apart = max(3, round(0.5 * config.apart))
    corners = cv2.goodFeaturesToTrack(grey, 2 * config.features, config.quality, apart)
    image = described(grey, np.zeros((0, 2)) if corners is None else corners.reshape(-1, 2))
    if len(image.pixels) < config.min_inliers:
        return None
    with_looks = [k for k, keyframe in enumerate(world.keyframes) if len(keyframe.ids)][::-1]
    tried = (_by_keyframe(world, k, grey, image, config) for k in with_looks[:: max(1, len(with_looks) // COMPARED)])
    return next((found for found in tried if found is not None), None)


def _by_keyframe(world: SparseMap, k: int, grey: np.ndarray, image: Corners, config: VisualConfig) -> FoundAgain | None:
    """Where the camera of an image is, if it shows the landmarks of keyframe k.

    A texture that repeats itself matches in places, too: of the matched landmarks and the others that the image
    should show, a share of CONFIRMED has to be where the pose says. Of the others alone, a third fewer true returns
    hold (fr1/desk in a map of its first 300 frames).
    """
    keyframe, fewest = world.keyframes[k], config.min_inliers
    if len(keyframe.ids) < fewest:
        return None
    theirs, mine = matches_between(keyframe.descriptors, image.descriptors)
    if len(mine) < fewest:
        return None
    points = world.project(keyframe.ids[theirs], np.eye(4)).points
    seen = image.pixels[mine].astype(np.float64)
    sampled = sampled_pose(points, seen, world.camera, WITHIN, TRIES, SURE, SAMPLE)
    if sampled is None or len(sampled.inliers) < fewest:
        return None
    T, chosen = sampled
    ids, first = np.unique(keyframe.ids[theirs[chosen]], return_index=True)
    pixels = image.pixels[mine[chosen[first]]]
    T, distances = located(world, T, ids, pixels)
    if not config.holds(distances):
        return None
    others, shown, asked = _others_shown(world, grey, np.setdiff1d(keyframe.ids, ids), T, config)
    ids, pixels = np.concatenate([ids, others]), np.concatenate([pixels, shown])
    T, distances = located(world, T, ids, pixels)
    if config.inliers(distances) < max(fewest, CONFIRMED * (asked + len(chosen))):
        return None
    return FoundAgain(T, ids, pixels)


def _others_shown(
    world: SparseMap, grey: np.ndarray, ids: np.ndarray, T: np.ndarray, config: VisualConfig
) -> tuple[np.ndarray, np.ndarray, int]:
    """Those of landmarks (N,) that an image taken from T, camera from world, shows.

    Returns their numbers, their pixels (M, 2), and how many it should show.
    """
    kept = np.array([world.keyframes[h].grey is not None for h in world.host[ids]], bool)
    ids = ids[kept & (world.strikes[ids] < STRIKES)]
    expected = world.project(ids, T).pixels
    inside = world.inside(expected)
    ids, expected = ids[inside], expected[inside]
    pixels, found = matched_to_hosts(world, grey, ids, expected, config)
    return ids[found], pixels[found].astype(np.float32), len(ids)
