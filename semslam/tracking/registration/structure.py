"""How much of what registration measures is structure, that map and frame both show, and how much the noise of either.

Noise in normals and greys enters the normal equations as if it were structure: its squares add up however little there
is to see. Products of the map's and the frame's do not, because their noises are independent (instrumental variables:
Fuller, "Measurement Error Models", 1987). Directions of motion in which no structure is left are taken from the motion
that was expected (solution remapping: Zhang, Kaess and Singh, ICRA 2016).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from semslam.compiled import SERIAL, project, rotated, transformed
from semslam.engine.depth_filter import depth_sigma
from semslam.tracking.registration.gauss_newton import held_by_shape
from semslam.tracking.registration.model import BLOCK
from semslam.tracking.registration.terms import dot, most_apart

FEW, SAMPLES = 1_500, 6_000  # points that are compared, at most: at first, and where these leave a doubt
CLEAR = 3.0  # standard deviations of what noise makes of nothing: so much is no structure yet, and twice that is
MOSTLY = 0.5  # share of structure in what is measured from which it counts in full
SURELY = 0.6  # the same for few points, whose sums are less sure
BOTH, MAP, FRAME = range(3)  # rows of products: of the map's Jacobians with the frame's, and of each with itself


class Products(NamedTuple):
    """Sums of products of the Jacobians (6,) that map and frame tell for the same points."""

    geometry: np.ndarray  # (3, 6, 6)
    color: np.ndarray  # (3, 6, 6)
    counts: np.ndarray  # (2,) points of each


@njit(**SERIAL)
def _add(rows, count, out):
    """Add the products of so many points, each of whose Jacobians (12,) is a column of rows (12 * BLOCK,): the map's
    six, then the frame's; to their sums (3, 6, 6), upper triangles."""
    products = np.empty(BLOCK // 2, np.float32)
    for k in range(12):
        rows[k * BLOCK + count : (k + 1) * BLOCK] = np.float32(0)
    for a in range(6):
        map_a, frame_a = rows[a * BLOCK : (a + 1) * BLOCK], rows[(6 + a) * BLOCK : (7 + a) * BLOCK]
        for b in range(a, 6):
            map_b, frame_b = rows[b * BLOCK : (b + 1) * BLOCK], rows[(6 + b) * BLOCK : (7 + b) * BLOCK]
            out[0, a, b] += 0.5 * (dot(map_a, frame_b, products) + dot(frame_a, map_b, products))
            out[1, a, b] += dot(map_a, map_b, products)
            out[2, a, b] += dot(frame_a, frame_b, products)


@njit(inline="always")
def _set(rows, j, x, y, z, direction, s):
    """Make s times the Jacobian (6,) of a change along a direction (3,) at a point, by the twist of the map, see
    `linearize`, the column j of rows."""
    a, b, c = s * direction[0], s * direction[1], s * direction[2]
    rows[j], rows[BLOCK + j], rows[2 * BLOCK + j] = a, b, c
    rows[3 * BLOCK + j], rows[4 * BLOCK + j] = y * c - z * b, z * a - x * c
    rows[5 * BLOCK + j] = x * b - y * a


@njit(**SERIAL)
def _difference(before, here, after):
    """Grey levels a pixel along an axis; nan where too few pixels are known."""
    if before >= 0 and after >= 0:
        return np.float32(0.5) * (after - before)
    if here < 0 or max(before, after) < 0:
        return np.float32(np.nan)
    return here - before if before >= 0 else after - here


@njit(**SERIAL)
def _slope(image, u, v):
    """Grey levels a pixel along u and v at a pixel of an image, NO_GREY = unknown; nan where it is not known."""
    height, width = image.shape
    if not (1 <= u < width - 1 and 1 <= v < height - 1):
        return np.float32(np.nan), np.float32(np.nan)
    here = image[v, u]
    return _difference(image[v, u - 1], here, image[v, u + 1]), _difference(image[v - 1, u], here, image[v + 1, u])


@njit(**SERIAL)
def products(model, every, T, live, cameras, shown, gates):
    """`Products` of every n-th point of a model at T = T_live_view, with the weights of `linearize`.

    Points take part whatever the angle between the two normals: a gate on it would pick those whose noises are alike.
    model: points (N, 7), pixels (N, 2) and roots of weights (N,) of a view. cameras: of depth, and of the level of the
    grey images. shown: the view's grey on that level, and the contrast of the live image against it.
    """
    points, pixels, roots = model
    depth, normals, image = live
    camera, grey_camera = cameras
    model_grey, gain = shown
    width, height, fx, fy, cx, cy = camera
    _, _, gx, gy, gcx, gcy = grey_camera
    shrunk = camera.width // grey_camera.width
    half, one = np.float32(0.5), np.float32(1)
    geometry, color, counts = np.zeros((3, 6, 6)), np.zeros((3, 6, 6)), np.zeros(2, np.int64)
    of_geometry, of_color = np.empty(12 * BLOCK, np.float32), np.empty(12 * BLOCK, np.float32)
    shaped, grey_points = 0, 0  # columns of these that wait
    for i in range(0, len(points), every):
        x, y, z = transformed(T, points[i, 0], points[i, 1], points[i, 2])
        if z <= np.float32(0.05):
            continue
        u, v = project(camera, x, y, z)
        if not (u >= 0 and v >= 0 and u < width - 1 and v < height - 1):
            continue
        column, row = int(u + half), int(v + half)
        d = depth[row, column]
        nx, ny, nz = rotated(T, points[i, 3], points[i, 4], points[i, 5])
        mx, my, mz = normals[row, column, 0], normals[row, column, 1], normals[row, column, 2]
        qx, qy = (np.float32(column) - cx) / fx * d, (np.float32(row) - cy) / fy * d
        far2 = (qx - x) ** 2 + (qy - y) ** 2 + (d - z) ** 2
        sigma = depth_sigma(z, gates)
        if d > 0 and far2 <= most_apart(gates.far, z, sigma) ** 2:
            e = (nx * (qx - x) + ny * (qy - y) + nz * (d - z)) / (sigma * gates.geometry_scale * gates.tukey)
            if e * e < one:
                s = (one - e * e) * roots[i] / sigma
                _set(of_geometry, shaped, qx, qy, d, (nx, ny, nz), s)
                _set(of_geometry[6 * BLOCK :], shaped, qx, qy, d, (mx, my, mz), s)
                counts[0] += 1
                shaped += 1
                if shaped == BLOCK:
                    _add(of_geometry, shaped, geometry)
                    shaped = 0
        elif d > 0:
            continue
        u, v = project(grey_camera, x, y, z)
        lu, lv = _slope(image, int(u + half), int(v + half))
        mu, mv = _slope(model_grey, pixels[i, 0] // shrunk, pixels[i, 1] // shrunk)
        if not (lu * lu + lv * lv >= gates.gradient2 and np.isfinite(mu + mv)):  # nan fails both
            continue
        s = roots[i] / gates.grey_scale
        jx, jy = gain * mu * gx / z, gain * mv * gy / z
        _set(of_color, grey_points, x, y, z, (jx, jy, -(jx * x + jy * y) / z), s)
        jx, jy = lu * gx / z, lv * gy / z
        _set(of_color[6 * BLOCK :], grey_points, x, y, z, (jx, jy, -(jx * x + jy * y) / z), s)
        counts[1] += 1
        grey_points += 1
        if grey_points == BLOCK:
            _add(of_color, grey_points, color)
            grey_points = 0
    _add(of_geometry, shaped, geometry)
    _add(of_color, grey_points, color)
    for a in range(6):
        for b in range(a):
            geometry[:, a, b], color[:, a, b] = geometry[:, b, a], color[:, b, a]
    return geometry, color, counts


@njit(**SERIAL)
def held_by_structure(products, shares, independent, prior, degenerate, mostly):
    """(6, 6) what takes a twist to the part of it that structure tells; the identity where that is all of it.

    shares: of a product in the information, for geometry and colour. independent: measurements that one point is worth.
    prior: (6,) information of the motion expected. degenerate: see `Balance`. mostly: share of structure in what is
    measured from which it counts in full, see `MOSTLY`.

    Along each direction that what is measured tells apart: a tenth of structure makes a least-squares step a tenth of
    what it should be, and leaves a hundredth of the information that it claims.
    """
    shape = held_by_shape(products.geometry[MAP], degenerate)
    back = np.ascontiguousarray(shape.T)
    geometry, color = np.empty((3, 6, 6)), shares[1] * products.color
    for row in range(3):
        geometry[row] = shares[0] * (shape @ products.geometry[row] @ back)
    measured = np.diag(prior) + geometry[MAP] + color[FRAME]  # as `linearize` takes normals and gradients
    root = np.linalg.inv(np.linalg.cholesky(measured))
    back = np.ascontiguousarray(root.T)
    structure, vectors = np.linalg.eigh(root @ (geometry[BOTH] + color[BOTH]) @ back)
    directions = back @ vectors  # (6, 6) in columns
    held = np.empty(6)
    for k in range(6):
        direction, of_noise = np.ascontiguousarray(directions[:, k]), 0.0  # variance of sums, if nothing were structure
        for term, count in ((geometry, products.counts[0]), (color, products.counts[1])):
            of_map, of_frame = direction @ term[MAP] @ direction, direction @ term[FRAME] @ direction
            of_noise += max(of_map * of_frame, 1e-30) / max(independent * count, 1.0)
        clear = structure[k] / (CLEAR * np.sqrt(of_noise)) - 1
        held[k] = min(max(clear, 0.0), 1.0) * min(max(structure[k] / mostly, 0.0), 1.0)
    if held.min() == 1:
        return np.eye(6)
    return (directions * held) @ np.ascontiguousarray(directions.T) @ measured
