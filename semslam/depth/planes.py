"""Planes in flat surfaces without texture: images determine the depth of their edges alone, and that is enough.

An evenly coloured patch of an image is searched for planes through the depth that is known in it. The inverse depth of
a plane is linear in the pixel, 1 / z = a u + b v + c, so that planes are fitted to inverse depth (RANSAC; Fischler and
Bolles, 1981). Where something hides a part of a patch, that edge lies in another plane, which may mislead: a network
must see the same shape (`looks_like`), and other images the same plane (`runs.finished.planes`).
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import cv2
import numba as nb
import numpy as np
from scipy.ndimage import find_objects

from semslam.compiled import SERIAL

f32 = np.float32
EDGE = 3.0  # units of 8-bit CIELAB a pixel: a larger gradient ends a patch
RIM = 2  # pixels beyond its end that are counted as part of a patch: often the only ones whose depth is known
LEAST_AREA = 0.004  # of the image, of a patch
LEAST_UNKNOWN = 0.001  # of the image, of the pixels of a patch whose depth is not known: specks are not worth a search
LEAST_KNOWN = 60  # pixels of known depth, in a patch and on each of its planes
LEAST_SHARE = 0.05  # likewise, of the patch's known pixels, on each of its planes
ON_PLANE = 0.03  # relative distance from a plane up to which a pixel's depth lies on it
EXPLAINED = 0.7  # share of a patch's known pixels that must lie on its planes
PLANES = 3  # of one patch, at most
TRIALS, LOOKED_AT = 100, 600  # of RANSAC for each plane, and known pixels of a patch that they are judged by, at most
SPREAD = 200.0  # pixels^2: twice the area of a triangle that tells a plane
CORNER = 0.8  # share of two planes' pixels that must agree whether they meet in a convex or a concave corner
ALIKE, MOST = 0.15, 0.6  # of a plane's pixels MOST must have the network's depth, in its scale, up to this log ratio


class Plane(NamedTuple):
    """A plane that a patch of an image shows, and the pixels that are on it."""

    inverse: np.ndarray  # (3,) float64 a, b, c of 1 / z = a u + b v + c, 1 / metres
    known: np.ndarray  # (H, W) bool: whose known depth lies on it
    found: np.ndarray  # (H, W) bool: without known depth, which it gives one

    def depth_at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """(...) float32 metres at pixels; not positive, or infinite, where the plane is not before the camera."""
        return _depth_of(self.inverse, u, v)


def even_patches(color: np.ndarray) -> np.ndarray:
    """(H, W) int32: the number of the evenly coloured patch of each pixel, from 1; 0 where there is none.

    color: (H, W, 3) uint8 RGB.
    """
    lab = cv2.bilateralFilter(cv2.cvtColor(color, cv2.COLOR_RGB2LAB), 5, 20, 3).astype(f32)
    across, down = (cv2.Sobel(lab, cv2.CV_32F, x, 1 - x, scale=0.125) for x in (1, 0))
    even = (np.hypot(across, down).max(axis=2) < EDGE).astype(np.uint8)
    even = cv2.erode(even, np.ones((3, 3), np.uint8))  # patches that touch at a few pixels are two
    _, patches = cv2.connectedComponents(even, connectivity=4)
    side = 2 * RIM + 1
    grown = cv2.dilate(patches.astype(f32), np.ones((side, side), np.uint8)).astype(np.int32)  # below 2^24: exact
    return np.where(patches > 0, patches, grown)


def planes_of(depth: np.ndarray, patches: np.ndarray, seed: int = 0) -> list[Plane]:
    """The planes in an image that give depth to some pixels without.

    Only pixels in the convex hull of those known to lie on a plane get its depth. Where two planes of one patch reach
    a pixel, it lies on the nearer one if they meet in a concave corner, on the farther one if in a convex one, and on
    none if that cannot be told.

    Args:
        depth: (H, W) float32 metres, 0 = unknown.
        patches: (H, W) int32, see `even_patches`.
        seed: of the random choices.
    """
    areas = np.bincount(patches.ravel())
    known = np.bincount(patches[depth > 0], minlength=len(areas))
    large = (areas >= LEAST_AREA * patches.size) & (known >= LEAST_KNOWN)
    large &= areas - known >= LEAST_UNKNOWN * patches.size
    large[0] = False
    boxes, rng = find_objects(patches), np.random.default_rng(seed)
    found = (_planes_of_patch(int(n), patches, depth, boxes[n - 1], rng) for n in np.flatnonzero(large))
    return [plane for planes in found for plane in planes]


def looks_like(plane: Plane, known: np.ndarray, predicted: np.ndarray) -> bool:
    """Whether a network sees a plane's shape, in the scale that it has where depth is known."""
    both = plane.known & (predicted > 0)
    there = plane.found & (predicted > 0)
    if not both.any() or not there.any():
        return False
    scale = np.median(known[both] / predicted[both])
    v, u = np.nonzero(there)
    off = np.abs(np.log(plane.depth_at(u, v) / (scale * predicted[v, u])))
    return bool((off < ALIKE).mean() >= MOST)


def _planes_of_patch(
    number: int, patches: np.ndarray, depth: np.ndarray, box: tuple[slice, slice], rng: np.random.Generator
) -> list[Plane]:
    """Likewise of the patch of that number, which lies in a box (rows, columns) of the image."""
    patch, known = patches[box] == number, depth[box] > 0
    corner = np.array([box[1].start, box[0].start])
    v, u = np.nonzero(patch & known)
    pixels = np.column_stack([u + corner[0], v + corner[1], np.ones(len(u))])
    inverse = 1 / depth[box][v, u].astype(np.float64)
    rest = np.ones(len(u), bool)
    fits: list[np.ndarray] = []
    members: list[np.ndarray] = []  # (N,) bool: which pixels each plane holds
    while len(fits) < PLANES and rest.sum() >= LEAST_KNOWN:
        fit = _largest_plane(pixels[rest], inverse[rest], rng)
        if fit is None:
            break
        on = rest & (_distance(fit, pixels, inverse) < ON_PLANE)
        if on.sum() < max(LEAST_KNOWN, LEAST_SHARE * len(rest)):
            break
        fits.append(fit)
        members.append(on)
        rest &= ~on
    if not fits or rest.sum() > (1 - EXPLAINED) * len(rest):
        return []
    unknown = np.nonzero(patch & ~known)
    reached = np.stack([_hull(np.column_stack([u[on], v[on]]), patch.shape)[unknown] for on in members])
    z = np.stack([_depth_of(fit, unknown[1] + corner[0], unknown[0] + corner[1]) for fit in fits])
    chosen = _nearer_or_farther(fits, [pixels[on] for on in members], reached, z)
    planes = []
    for k, (fit, on) in enumerate(zip(fits, members)):
        mine = (chosen == k) & (z[k] > 0) & np.isfinite(z[k])
        if mine.any():
            known_on_it, found = np.zeros((2, *depth.shape), bool)
            known_on_it[box][v[on], u[on]] = True
            found[box][unknown[0][mine], unknown[1][mine]] = True
            planes.append(Plane(fit, known_on_it, found))
    return planes


def _nearer_or_farther(
    fits: list[np.ndarray], members: list[np.ndarray], reached: np.ndarray, z: np.ndarray
) -> np.ndarray:
    """(N,) which of K planes each of N unknown pixels lies on, -1 = none.

    members: the known pixels (M, 3) u, v, 1 on each plane. reached: (K, N) bool, which planes may have each pixel.
    z: (K, N) metres, the planes' depth there.
    """
    chosen = np.where(reached.any(axis=0), reached.argmax(axis=0), -1)
    for i, j in combinations(range(len(fits)), 2):
        both = reached[i] & reached[j] & ((chosen == i) | (chosen == j))
        if not both.any():
            continue
        before = np.concatenate(  # the own plane's inverse depth, less the other's
            [_linear(fits[i] - fits[j], members[i]), _linear(fits[j] - fits[i], members[j])]
        )
        concave = float((before >= 0).mean())
        nearer = np.where(z[i] <= z[j], i, j)
        if concave >= CORNER:
            chosen[both] = nearer[both]
        elif concave <= 1 - CORNER:
            chosen[both] = (i + j - nearer)[both]
        else:
            chosen[both] = -1
    return chosen


def _largest_plane(pixels: np.ndarray, inverse: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
    """(3,) a, b, c of the plane on which most of N pixels lie; None where too few lie on any.

    pixels: (N, 3) u, v, 1. inverse: (N,) inverse depth.
    """
    some = rng.choice(len(pixels), min(LOOKED_AT, len(pixels)), replace=False)
    corners = rng.integers(len(pixels), size=(TRIALS, 3))
    corners = corners[np.abs(np.linalg.det(pixels[corners])) > SPREAD]
    if len(corners) == 0:
        return None
    fits = np.linalg.solve(pixels[corners], inverse[corners][..., None])[..., 0]
    fit = fits[_votes(fits, pixels[some], inverse[some], ON_PLANE).argmax()]
    for _ in range(3):
        count, normal, right = _normal_equations(fit, pixels, inverse, ON_PLANE)
        if count < LEAST_KNOWN or np.linalg.cond(normal) > 1e12:
            return None
        fit = np.linalg.solve(normal, right)
    return fit


@nb.njit(**SERIAL)
def _votes(fits, pixels, inverse, within):
    """How many of N pixels lie on each of T planes (T, 3), up to a relative distance."""
    counts = np.zeros(len(fits), np.int64)
    for t in range(len(fits)):
        a, b, c = fits[t, 0], fits[t, 1], fits[t, 2]
        for n in range(len(pixels)):
            counts[t] += abs((a * pixels[n, 0] + b * pixels[n, 1] + c) / inverse[n] - 1) < within
    return counts


@nb.njit(**SERIAL)
def _normal_equations(fit, pixels, inverse, within):
    """Of those of N pixels that lie on a plane (3,): their number, and the normal equations (3, 3), (3,) of the plane
    that fits them best, by relative errors."""
    count, normal, right = 0, np.zeros((3, 3)), np.zeros(3)
    for n in range(len(pixels)):
        row = pixels[n]
        if not abs((fit[0] * row[0] + fit[1] * row[1] + fit[2]) / inverse[n] - 1) < within:
            continue
        count += 1
        weight = 1 / (inverse[n] * inverse[n])
        for i in range(3):
            right[i] += weight * row[i] * inverse[n]
            for k in range(3):
                normal[i, k] += weight * row[i] * row[k]
    return count, normal, right


def _linear(fit: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(N,) a u + b v + c; einsum, since the last bits of a matrix product may depend on the number of threads."""
    return np.einsum("k,nk->n", fit, pixels)


def _distance(fit: np.ndarray, pixels: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """(N,) relative distance of inverse depths from a plane."""
    return np.abs(_linear(fit, pixels) / inverse - 1)


def _depth_of(fit: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return (1 / (fit[0] * u + fit[1] * v + fit[2])).astype(f32)


def _hull(points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool, of points (N, 2) u, v."""
    image = np.zeros(shape, np.uint8)
    cv2.fillConvexPoly(image, cv2.convexHull(points.astype(np.int32)), 1)
    return image > 0
