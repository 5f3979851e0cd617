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

SAMPLES = 6_000  # points that are compared, at most
CLEAR = 3.0  # standard deviations of what noise makes of nothing: so much is no structure yet, and twice that is
MOSTLY = 0.5  # share of structure in what is measured from which it counts in full
BOTH, MAP, FRAME = range(3)  # rows of products: of the map's Jacobians with the frame's, and of each with itself


class Products(NamedTuple):
    """Sums of products of the Jacobians (6,) that map and frame tell for the same points."""

    geometry: np.ndarray  # (3, 6, 6)
    color: np.ndarray  # (3, 6, 6)
    counts: np.ndarray  # (2,) points of each


@njit(**SERIAL)
def _add(of_map, of_frame, weight, out):
    """Add the products of a point to their sums (3, 6, 6), upper triangles."""
    for a in range(6):
        for b in range(a, 6):
            out[0, a, b] += weight * np.float32(0.5) * (of_map[a] * of_frame[b] + of_frame[a] * of_map[b])
            out[1, a, b] += weight * of_map[a] * of_map[b]
            out[2, a, b] += weight * of_frame[a] * of_frame[b]


@njit(**SERIAL)
def _twisted(x, y, z, direction, out):
    """The Jacobian (6,) of a change along a direction (3,) at a point, by the twist of the map; see `linearize`."""
    a, b, c = direction
    out[0], out[1], out[2] = a, b, c
    out[3], out[4], out[5] = y * c - z * b, z * a - x * c, x * b - y * a


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
    of_map, of_frame = np.zeros(6, np.float32), np.zeros(6, np.float32)
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
        if d > 0 and far2 <= gates.far * gates.far:
            sigma = depth_sigma(z, gates)
            e = (nx * (qx - x) + ny * (qy - y) + nz * (d - z)) / (sigma * gates.geometry_scale * gates.tukey)
            if e * e < one:
                weight = ((one - e * e) * roots[i] / sigma) ** 2
                _twisted(qx, qy, d, (nx, ny, nz), of_map)
                _twisted(qx, qy, d, (mx, my, mz), of_frame)
                _add(of_map, of_frame, weight, geometry)
                counts[0] += 1
        elif d > 0:
            continue
        u, v = project(grey_camera, x, y, z)
        lu, lv = _slope(image, int(u + half), int(v + half))
        mu, mv = _slope(model_grey, pixels[i, 0] // shrunk, pixels[i, 1] // shrunk)
        if not (lu * lu + lv * lv >= gates.gradient2 and np.isfinite(mu + mv)):  # nan fails both
            continue
        mu, mv = gain * mu, gain * mv
        weight = (roots[i] / gates.grey_scale) ** 2
        jx, jy = mu * gx / z, mv * gy / z
        _twisted(x, y, z, (jx, jy, -(jx * x + jy * y) / z), of_map)
        jx, jy = lu * gx / z, lv * gy / z
        _twisted(x, y, z, (jx, jy, -(jx * x + jy * y) / z), of_frame)
        _add(of_map, of_frame, weight, color)
        counts[1] += 1
    for a in range(6):
        for b in range(a):
            geometry[:, a, b], color[:, a, b] = geometry[:, b, a], color[:, b, a]
    return geometry, color, counts


def held_by_structure(
    products: Products, shares: tuple[float, float], independent: float, prior: np.ndarray, degenerate: float
) -> np.ndarray:
    """(6, 6) what takes a twist to the part of it that structure tells; the identity where that is all of it.

    shares: of a product in the information, for geometry and colour. independent: measurements that one point is worth.
    prior: (6,) information of the motion expected. degenerate: see `Balance`.

    Along each direction that what is measured tells apart: a tenth of structure makes a least-squares step a tenth of
    what it should be, and leaves a hundredth of the information that it claims.
    """
    shape = held_by_shape(products.geometry[MAP], degenerate)
    terms = [shares[0] * shape @ products.geometry @ shape.T, shares[1] * products.color]
    measured = np.diag(prior) + terms[0][MAP] + terms[1][FRAME]  # as `linearize` takes normals and gradients
    root = np.linalg.inv(np.linalg.cholesky(measured))
    structure, vectors = np.linalg.eigh(root @ (terms[0][BOTH] + terms[1][BOTH]) @ root.T)
    directions = root.T @ vectors  # (6, 6) in columns
    of_noise = np.zeros(6)  # variance of products' sums, if nothing were structure
    for term, count in zip(terms, products.counts):
        of_map, of_frame = (np.einsum("ik,ij,jk->k", directions, term[row], directions) for row in (MAP, FRAME))
        of_noise += np.maximum(of_map * of_frame, 1e-30) / max(independent * count, 1.0)
    clear = np.clip(structure / (CLEAR * np.sqrt(of_noise)) - 1, 0, 1)
    held = clear * np.clip(structure / MOSTLY, 0, 1)
    return np.eye(6) if held.min() == 1 else directions * held @ directions.T @ measured
