"""The model side of registration, compiled: grey pyramids of a view and its points, as `linearize` takes them."""

from __future__ import annotations

import numpy as np
from numba import njit

from semslam.compiled import SERIAL, project, transformed
from semslam.frame import NO_GREY

BLOCK = 512  # points a block of the reduction
# A model is the points of a view that take part on one level, (B, FIELDS, BLOCK) float32: position in metres and normal
# in the view's camera, the square root of the weight, and the grey on that level, NO_GREY = unknown. What is missing in
# the last block is not a number.
FIELDS = 8
X, Y, Z, N_X, N_Y, N_Z, ROOT, GREY = (k * BLOCK for k in range(FIELDS))


@njit(**SERIAL)
def halved(image, out):
    """The mean of the known pixels of each 2x2 block; NO_GREY where none is known."""
    height, width = out.shape
    zero, unknown = np.float32(0), np.float32(NO_GREY)
    for v in range(height):
        upper, lower, row = image[2 * v], image[2 * v + 1], out[v]
        for u in range(width):  # without branches, over whole vectors
            a, b, c, d = upper[2 * u], upper[2 * u + 1], lower[2 * u], lower[2 * u + 1]
            total = (a if a >= zero else zero) + (b if b >= zero else zero)
            total = total + (c if c >= zero else zero) + (d if d >= zero else zero)
            known = np.float32(a >= zero) + np.float32(b >= zero) + np.float32(c >= zero) + np.float32(d >= zero)
            row[u] = total / known if known > zero else unknown


@njit(**SERIAL)
def mean_grey(image):
    """The mean of the known pixels of an image; 0 where none is known."""
    total, known = 0.0, 0
    for value in image.flat:
        if value >= 0:
            total += value
            known += 1
    return total / max(known, 1)


@njit(**SERIAL)
def weigh(points, pixels, image, trusted, trust, roots, greys):
    """What a view's points (N, 7) count, each (N,): their trust, 0 to 1, the square roots of their weights, and their
    grey in the view's image, of which they are `pixels` (N, 2).

    A surfel that few frames made repeats their errors, or is of something that passes through the view: it counts by
    the square of its confidence. All together count as much as by their confidence.
    """
    total, squares, one = 0.0, 0.0, np.float32(1)
    for i in range(len(points)):
        trust[i] = min(points[i, 6] / trusted, one)
        greys[i] = image[pixels[i, 1], pixels[i, 0]]
        total += trust[i]
        squares += trust[i] * trust[i]
    factor = np.float32(np.sqrt(total / squares) if squares > 0 else 1.0)
    for i in range(len(points)):
        roots[i] = factor * trust[i]


@njit(**SERIAL)
def contrasts(points, every, greys, T, image, camera):
    """Standard deviations of the known greys (N,) of every n-th point, and of those of an image (H, W) at
    T = T_live_view of which they would be pixels; and how many they are."""
    height, width = image.shape
    known, sums = 0, np.zeros(4)
    for i in range(0, len(points), every):
        x, y, z = transformed(T, points[i, 0], points[i, 1], points[i, 2])
        if not (z > np.float32(0.05) and greys[i] >= 0):
            continue
        u, v = project(camera, x, y, z)
        u, v = np.rint(u), np.rint(v)
        if u >= 0 and v >= 0 and u < width and v < height and image[int(v), int(u)] >= 0:
            model, live = np.float64(greys[i]), np.float64(image[int(v), int(u)])
            sums[0] += model
            sums[1] += model * model
            sums[2] += live
            sums[3] += live * live
            known += 1
    sums /= max(known, 1)
    return np.sqrt(max(sums[1] - sums[0] ** 2, 0.0)), np.sqrt(max(sums[3] - sums[2] ** 2, 0.0)), known


@njit(**SERIAL)
def sample_grey(points, every, image, camera, out):
    """Grey of a level (H, W) at the projections of every n-th point.

    Bilinear over the known pixels around; NO_GREY if too few are known.
    """
    height, width = image.shape
    for i in range(0, len(points), every):
        u, v = project(camera, points[i, 0], points[i, 1], points[i, 2])
        u_0, v_0 = int(np.floor(u)), int(np.floor(v))
        total, weights = np.float32(0), np.float32(0)
        for dv in range(2):
            for du in range(2):
                uu, vv = u_0 + du, v_0 + dv
                if uu >= 0 and vv >= 0 and uu < width and vv < height and image[vv, uu] >= 0:
                    weight = (np.float32(1) - abs(u - np.float32(uu))) * (np.float32(1) - abs(v - np.float32(vv)))
                    total += weight * image[vv, uu]
                    weights += weight
        out[i] = total / weights if weights > np.float32(0.25) else np.float32(NO_GREY)


@njit(**SERIAL)
def make_model(points, roots, greys, every, out):
    """The model, see FIELDS, of every n-th of a view's points (N, 7) with their roots and greys (N,)."""
    count = (len(points) + every - 1) // every
    for block in range(len(out)):
        first, missing = block * BLOCK, max((block + 1) * BLOCK - count, 0)
        for j in range(BLOCK - missing):
            i = (first + j) * every
            for k in range(6):
                out[block, k, j] = points[i, k]
            out[block, 6, j], out[block, 7, j] = roots[i], greys[i]
        out[block, :, BLOCK - missing :] = np.float32(np.nan)
