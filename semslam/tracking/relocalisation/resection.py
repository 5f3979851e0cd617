"""Where an image was taken whose features are points of a map, and through which lens where nothing tells.

P3P in RANSAC, then robust Gauss-Newton on the reprojection errors, whose normal equations tell the covariance. Of an
image of an unknown lens, several focal lengths are tried so, and that of the best is adjusted with the pose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.tracking.features import sampled_pose

BYTES = 128  # of a descriptor
PIXELS = 3.0  # reprojection error of an inlier in an image of a place's width, at most
TURNED = np.radians(50)  # between two views of a point, at most: features hardly survive more (Lowe 2004)
FOCALS = 1.2 ** np.array([0, -1, 1, -2, 2, -3, 3, -4, 4, 5])  # times the guess, that are tried: half to 2.5 times
FOCAL_STD = 0.5  # of an unknown focal length's logarithm, before anything is seen
ASPECT_STD = 0.1  # of that of a pixel's width over its height
LIKE_GUESS = 0.02  # relative difference from the guess that is none


@dataclass(frozen=True, eq=False)
class Described:
    """The features of one image."""

    camera: Camera  # of the image that was described, WIDTH pixels wide
    pixels: np.ndarray  # (N, 2) float32 u, v in it
    descriptors: np.ndarray  # (N, BYTES) uint8

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, eq=False)
class Located:
    """A pose found among places."""

    T_world_camera: np.ndarray  # (4, 4)
    covariance: np.ndarray  # (6, 6) of the twist (translation, rotation), camera frame
    inliers: int  # features of the image whose points in the map agree with the pose
    matches: int  # features of the image that were matched
    spread: float  # share of the image, along its less covered side, over which the inliers reach
    turned: float  # radians, median angle between the inliers' rays in the image and in their places
    zoom: tuple[float, float] = (1.0, 1.0)  # times the camera's fx and fy, with which the image was taken
    focal_std: float = 0.0  # of the logarithm of fx; 0 where the lens is known

    @property
    def plausible(self) -> bool:
        """Whether so many matches may be worth a closer look."""
        return self.inliers >= 8 and self.spread >= 0.1 and self.turned <= TURNED


class Refined(NamedTuple):
    """A pose adjusted to points and pixels, and the focal length with it where that is unknown."""

    T_camera_world: np.ndarray  # (4, 4)
    covariance: np.ndarray  # (6, 6) of the twist (translation, rotation), camera frame
    errors: np.ndarray  # (N,) pixels
    zoom: tuple[float, float] = (1.0, 1.0)  # times the camera's fx and fy
    focal_std: float = 0.0  # of the logarithm of fx

    @property
    def agree(self) -> np.ndarray:
        """(N,) bool: the points that it explains."""
        return self.errors < PIXELS


def solved(points: np.ndarray, features: np.ndarray, image: Described, seen_from: np.ndarray) -> Located | None:
    """The pose of an image whose features, by number (N,), may be points (N, 3) in the world; None where none agrees.

    One feature may be several points, of which the pose chooses. seen_from: (N, 3) where the camera was that saw a
    point, in the world. The focal length of a camera that is a guess is adjusted, see `_of_unknown_lens`.
    """
    camera = image.camera
    if len(np.unique(features)) < 8:
        return None
    points, pixels = points.astype(np.float64), image.pixels[features].astype(np.float64)
    found = (_of_known_lens if camera.focal_known else _of_unknown_lens)(points, pixels, camera)
    if found is None or not np.isfinite(found.T_camera_world).all() or np.count_nonzero(found.agree) < 6:
        return None
    agree = found.agree
    reach = np.ptp(pixels[agree], axis=0) / (camera.width, camera.height)
    agreeing, matched = len(np.unique(features[agree])), len(np.unique(features))
    T_world_camera = poses.inverse(found.T_camera_world)
    turned = _turned(points[agree], seen_from[agree], T_world_camera[:3, 3])
    spread = float(reach.min())
    return Located(T_world_camera, found.covariance, agreeing, matched, spread, turned, found.zoom, found.focal_std)


def _of_known_lens(points: np.ndarray, pixels: np.ndarray, camera: Camera) -> Refined | None:
    sampled = sampled_pose(points, pixels, camera, PIXELS, tries=1000, confidence=0.9999)
    return None if sampled is None else refined(sampled.T_camera_points, points, pixels, camera)


def _of_unknown_lens(points: np.ndarray, pixels: np.ndarray, camera: Camera) -> Refined | None:
    """With the focal length that explains most points; the guess, where that is as good as the best one.

    The covariance is that of a pose whose focal length is unknown, in either case.
    """
    best: Refined | None = None
    for times in FOCALS:
        tried = camera.with_focal(camera.fx * times)
        sampled = sampled_pose(points, pixels, tried, PIXELS, tries=300, confidence=0.999)
        if sampled is None:
            continue
        found = refined(sampled.T_camera_points, points, pixels, camera, focal=float(times))
        if best is None or np.count_nonzero(found.agree) > np.count_nonzero(best.agree):
            best = found
    if best is None or np.abs(np.log(best.zoom)).max() > max(LIKE_GUESS, 3 * best.focal_std):
        return best
    guessed = refined(best.T_camera_world, points, pixels, camera)
    return guessed._replace(covariance=best.covariance, focal_std=best.focal_std)


def _turned(points: np.ndarray, seen_from: np.ndarray, camera: np.ndarray) -> float:
    """Median angle, in radians, between the rays to points (N, 3) from where they were seen (N, 3) and a camera (3,).

    Wrong matches agree by chance with any pose, often one behind what they show, as those of a mirror image do.
    """
    rays, others = points - camera, points - seen_from
    lengths = np.linalg.norm(rays, axis=1) * np.linalg.norm(others, axis=1)
    cosines = (rays * others).sum(axis=1) / np.maximum(lengths, 1e-9)
    return float(np.median(np.arccos(np.clip(cosines, -1, 1))))


def refined(
    T_camera_world: np.ndarray, points: np.ndarray, pixels: np.ndarray, camera: Camera, focal: float | None = None
) -> Refined:
    """Gauss-Newton from a pose on the reprojection errors of points (N, 3), under Tukey's weights.

    focal: times the camera's, to start from, where the focal length is unknown and adjusted too, and with it how much
    higher or lower than wide a pixel is: images are stretched as well as cropped.
    """
    T, zero = T_camera_world, np.zeros(len(points))
    zoom, unknowns = np.full(2, focal or 1.0), 6 if focal is None else 8
    information, errors = np.eye(unknowns), np.full(len(points), np.inf)
    for _ in range(12 if focal is None else 25):
        x = poses.transform(T, points)
        z = np.where(x[:, 2] > 0.05, x[:, 2], 1.0)
        fx, fy = zoom[0] * camera.fx / z, zoom[1] * camera.fy / z
        seen = np.stack([fx * x[:, 0], fy * x[:, 1]], axis=1)  # from the principal point
        residual = seen + (camera.cx, camera.cy) - pixels
        errors = np.where(x[:, 2] > 0.05, np.linalg.norm(residual, axis=1), np.inf)
        weight = np.square(np.maximum(1 - np.square(np.minimum(errors, 1e3) / (2 * PIXELS)), 0))
        rows = [fx, zero, -fx * x[:, 0] / z, zero, fy, -fy * x[:, 1] / z]
        J_x = np.stack(rows, axis=1).reshape(-1, 2, 3)  # of the pixel by the point in the camera's frame
        by_focal = np.stack([seen, seen * (0, 1)], axis=2)  # by the logarithms of fx and of fy / fx
        J = np.concatenate([J_x, -J_x @ poses.skew(x), by_focal], axis=2)[:, :, :unknowns]
        H = np.einsum("nia,n,nib->ab", J, weight, J)
        g = np.einsum("nia,n,ni->a", J, weight, residual)
        variance = np.einsum("n,ni->", weight, residual**2) / max(2 * weight.sum() - unknowns, 1)
        variance = max(variance, 0.25)  # no feature is better than half a pixel
        if focal is not None:
            prior = variance / np.square([FOCAL_STD, ASPECT_STD])
            H[[6, 7], [6, 7]] += prior
            g[6:] += prior * np.log([zoom[0], zoom[1] / zoom[0]])
        information = H / variance
        step = -np.linalg.solve(H + np.diag(np.full(unknowns, 1e-9 * np.trace(H) + 1e-12)), g)
        T = poses.exp(step[:6]) @ T
        if focal is not None:
            zoom *= np.exp(np.clip([step[6], step[6] + step[7]], -0.2, 0.2))
        if np.abs(step).max() < 1e-6:
            break
    covariance = np.linalg.inv(information + 1e-9 * np.eye(unknowns))
    focal_std = 0.0 if focal is None else float(np.sqrt(covariance[6, 6]))
    return Refined(T, covariance[:6, :6], errors, (float(zoom[0]), float(zoom[1])), focal_std)
