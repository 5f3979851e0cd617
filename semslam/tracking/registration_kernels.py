"""Compiled loops of tracking: grey pyramids, the model's points, and the two error terms with their Jacobians.

The unknown is T_live_view, which takes points of the view's camera (the map as predicted) to the live camera, and
its small change exp(twist) from the left, twist = (translation, rotation) as in `poses`.

Every reduction adds fixed blocks of points in float32 and the blocks in float64, so that the result is the same for
any number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from semslam.compiled import PARALLEL, SERIAL, pixel_of, project
from semslam.engine.depth_filter import depth_sigma
from semslam.frame import NO_GREY

BLOCK = 512  # points a block of the reduction

# Columns of a term's sums: 21 of the upper triangle of J^T W J, 6 of J^T W r, then
# the weighted sum of r^2, the sum of weights, the count of inliers, the plain sum of r and of r^2.
TRIANGLE, SUMS = 21, 32
WRR, W, COUNT, R, RR = 27, 28, 29, 30, 31


class Model(NamedTuple):
    """The points of a view, see `View`."""

    points: np.ndarray  # (N, 7) float32
    roots: np.ndarray  # (N,) float32 square roots of the points' weights
    grey: np.ndarray  # (N,) float32 on this level, NO_GREY = unknown


class Live(NamedTuple):
    """The frame that is registered, on one level."""

    depth: np.ndarray  # (H, W) float32 metres, 0 = none
    normals: np.ndarray  # (H, W, 3) float32
    grey: np.ndarray  # (h, w) float32


class Gates(NamedTuple):
    """Which pairs of points take part, and how much residuals count.

    Flat, because Numba's parallel loops take no tuple of tuples; `depth_sigma` reads base and quadratic.
    """

    base: np.float32  # the sensor's noise, see `Noise`
    quadratic: np.float32
    far: np.float32  # metres between the points of a pair, at most
    cosine: np.float32  # of the angle between their normals, at least
    geometry_scale: np.float32  # of the geometric residual, in units of the sensor's noise
    tukey: np.float32
    grey_scale: np.float32  # of the grey residual, grey levels
    grey_offset: np.float32  # grey levels: exposure, live minus model
    gradient2: np.float32  # least squared gradient of the image
    huber: np.float32
    border: np.float32  # loss of weight towards the border of the image


class Balance(NamedTuple):
    """How much the two terms and the motion that is expected count."""

    share: float  # of a measurement that one point is worth
    color_weight: float  # of the grey term against its statistical weight
    prior_translation: float  # metres: standard deviation of the motion expected
    prior_rotation: float  # radians
    degenerate: float  # mean squared share of the normals along a direction that geometry does not hold


@njit(**PARALLEL)
def halved(image, out):
    """The mean of the known pixels of each 2x2 block; NO_GREY where none is known."""
    height, width = out.shape
    for v_ in prange(height):
        v = np.int64(v_)  # prange counts unsigned
        for u in range(width):
            total, known = np.float32(0), 0
            for dv in range(2):
                for du in range(2):
                    value = image[2 * v + dv, 2 * u + du]
                    if value >= 0:
                        total += value
                        known += 1
            out[v, u] = total / np.float32(known) if known > 0 else np.float32(NO_GREY)


@njit(**SERIAL)
def mean_grey(image):
    """The mean of the known pixels of an image; 0 where none is known."""
    total, known = 0.0, 0
    for value in image.flat:
        if value >= 0:
            total += value
            known += 1
    return total / max(known, 1)


@njit(**PARALLEL)
def sample_grey(points, every, image, camera, out):
    """Grey of a level (H, W) at the projections of every n-th point.

    Bilinear over the known pixels around; NO_GREY if too few are known.
    """
    height, width = image.shape
    for k_ in prange((len(points) + every - 1) // every):
        i = np.int64(k_) * every  # prange counts unsigned
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
def _dot(a, b, products):
    """The scalar product of two rows (BLOCK,), halves onto halves: vectors without the compiler choosing an order."""
    half = BLOCK // 2
    for k in range(half):
        products[k] = a[k] * b[k] + a[k + half] * b[k + half]
    while half > 1:
        half //= 2
        for k in range(half):
            products[k] += products[k + half]
    return products[0]


@njit(**SERIAL)
def _reduce(rows, n, out):
    """Sums of products of the rows (8, BLOCK): six of sqrt(w) J, sqrt(w) r, and r itself in the last."""
    products = np.empty(BLOCK // 2, np.float32)
    rows[:, n:] = np.float32(0)
    m = 0
    for a in range(6):
        for b in range(a, 6):
            out[m] = _dot(rows[a], rows[b], products)
            m += 1
    for a in range(6):
        out[m] = _dot(rows[a], rows[6], products)
        m += 1
    out[WRR] = _dot(rows[6], rows[6], products)
    out[COUNT] = n
    out[RR] = _dot(rows[7], rows[7], products)


@njit(**PARALLEL)
def linearize(model, every, T, live, camera, grey_camera, gates, out):
    """Both error terms of every n-th of the model's points against the live frame, at T = T_live_view.

    Geometry: r = n . (p - x), x the model point and n its normal in the live camera, p the live point at the pixel
    nearest to the projection of x (projective data association, Blais and Levine 1995; point-to-plane, Chen and
    Medioni 1992). Perturbing the model by exp(twist) equals perturbing p by its inverse, so J = -(n, p x n), exactly.
    Colour: r = I(pi(x)) - c - offset, with J = grad I . d pi / dx . (1, -[x]x), grad I that of the bilinear
    interpolation.

    camera: of depth and normals; grey_camera: of the grey image.
    out (blocks, 3, SUMS) float32: geometry, colour, and counts [visible points, of them with live depth].
    """
    points, roots, model_grey = model
    depth, normals, image = live
    _, _, fx, fy, cx, cy = camera
    image_width, image_height, gx, gy, _, _ = grey_camera
    _, _, far, cosine, icp_scale, tukey, grey_scale, offset, gradient2, huber, border = gates
    far2 = far * far
    one = np.float32(1)
    for block_ in prange(out.shape[0]):
        block = np.int64(block_)  # prange counts unsigned
        geometry = np.empty((8, BLOCK), np.float32)
        colour = np.empty((8, BLOCK), np.float32)
        n_geometry, n_colour, visible, measured = 0, 0, 0, 0
        w_geometry, w_colour, r_colour = np.float32(0), np.float32(0), np.float32(0)
        for i in range(block * BLOCK * every, min((block + 1) * BLOCK * every, len(points)), every):
            a, b, c = points[i, 0], points[i, 1], points[i, 2]
            x = T[0, 0] * a + T[0, 1] * b + T[0, 2] * c + T[0, 3]
            y = T[1, 0] * a + T[1, 1] * b + T[1, 2] * c + T[1, 3]
            z = T[2, 0] * a + T[2, 1] * b + T[2, 2] * c + T[2, 3]
            if z < np.float32(0.05):
                continue
            iz = one / z
            px, py = x * iz, y * iz
            u, v = pixel_of(camera, x, y, z)
            if u < 0:
                continue
            visible += 1
            d = depth[v, u]
            slope2 = (px * px + py * py) * border
            root = roots[i] / np.sqrt(one + slope2 * slope2)
            e2 = one
            if d > 0:
                measured += 1
                qx, qy = (np.float32(u) - cx) / fx * d, (np.float32(v) - cy) / fy * d
                dx, dy, dz = qx - x, qy - y, d - z
                if dx * dx + dy * dy + dz * dz > far2:
                    continue
                a, b, c = points[i, 3], points[i, 4], points[i, 5]
                nx = T[0, 0] * a + T[0, 1] * b + T[0, 2] * c
                ny = T[1, 0] * a + T[1, 1] * b + T[1, 2] * c
                nz = T[2, 0] * a + T[2, 1] * b + T[2, 2] * c
                if normals[v, u, 0] * nx + normals[v, u, 1] * ny + normals[v, u, 2] * nz < cosine:
                    continue
                sigma = depth_sigma(z, gates)
                r = nx * dx + ny * dy + nz * dz
                e = r / (sigma * icp_scale * tukey)
                e2 = e * e
            if e2 < one:
                s = (one - e2) * root / sigma  # the square root of Tukey's weight, over the noise
                k = n_geometry
                geometry[0, k] = -s * nx
                geometry[1, k] = -s * ny
                geometry[2, k] = -s * nz
                geometry[3, k] = -s * (qy * nz - d * ny)
                geometry[4, k] = -s * (d * nx - qx * nz)
                geometry[5, k] = -s * (qx * ny - qy * nx)
                geometry[6, k] = s * r
                geometry[7, k] = r
                w_geometry += ((one - e2) * root) ** 2
                n_geometry += 1
            if model_grey[i] < 0:
                continue
            gu, gv = project(grey_camera, x, y, z)
            u, v = int(np.floor(gu)), int(np.floor(gv))
            if u < 0 or v < 0 or u >= image_width - 1 or v >= image_height - 1:
                continue
            fu, fv = gu - np.float32(u), gv - np.float32(v)
            i00, i01, i10, i11 = image[v, u], image[v, u + 1], image[v + 1, u], image[v + 1, u + 1]
            du = (one - fv) * (i01 - i00) + fv * (i11 - i10)
            dv = (one - fu) * (i10 - i00) + fu * (i11 - i01)
            if du * du + dv * dv < gradient2:
                continue
            r = (one - fv) * (i00 + fu * (i01 - i00)) + fv * (i10 + fu * (i11 - i10)) - model_grey[i]
            r_colour += r
            r -= offset
            weight = min(one, huber * grey_scale / max(abs(r), np.float32(1e-6)))
            weight *= root * root
            s = np.sqrt(weight) / grey_scale
            jx, jy = du * gx * iz, dv * gy * iz
            jz = -(jx * px + jy * py)
            k = n_colour
            colour[0, k] = s * jx
            colour[1, k] = s * jy
            colour[2, k] = s * jz
            colour[3, k] = s * (jz * y - jy * z)
            colour[4, k] = s * (jx * z - jz * x)
            colour[5, k] = s * (jy * x - jx * y)
            colour[6, k] = s * r
            colour[7, k] = r
            w_colour += weight
            n_colour += 1
        _reduce(geometry, n_geometry, out[block, 0])
        _reduce(colour, n_colour, out[block, 1])
        out[block, 0, W] = w_geometry
        out[block, 0, R] = 0  # of no use
        out[block, 1, W] = w_colour
        out[block, 1, R] = r_colour
        for k in range(2, SUMS):
            out[block, 2, k] = 0
        out[block, 2, 0] = visible
        out[block, 2, 1] = measured


@njit(**SERIAL)
def symmetric(sums):
    """The matrix J^T W J (6, 6) of a term's sums."""
    matrix = np.empty((6, 6))
    m = 0
    for a in range(6):
        for b in range(a, 6):
            matrix[a, b] = matrix[b, a] = sums[m]
            m += 1
    return matrix


@njit(**SERIAL)
def spread_of(sums):
    """Weighted standard deviation of a term's residuals, in units of the noise assumed."""
    return np.sqrt(sums[WRR] / max(sums[W], 1e-9))


@njit(**SERIAL)
def held(hessian, gradient, degenerate):
    """The geometric normal equations without the directions that only the noise of the normals holds.

    Rotations are counted as motion at the typical distance of the points, so that all six eigenvalues are mean
    squared shares of the normals along a direction: 1 for motion straight at a wall, 0 along it.
    """
    total = hessian[0, 0] + hessian[1, 1] + hessian[2, 2]  # the sum of weights, since normals are units
    if total <= 0:
        return np.zeros((6, 6)), np.zeros(6)
    reach = np.sqrt(max((hessian[3, 3] + hessian[4, 4] + hessian[5, 5]) / total, 1e-6))
    scale = np.ones(6)
    scale[3:] = 1 / reach
    scales = scale.reshape(6, 1) * scale
    values, vectors = np.linalg.eigh(hessian * scales / total)
    keep = np.minimum(np.maximum(values / degenerate - 1, 0), 1)
    kept = vectors * keep
    return (kept * values) @ vectors.T * total / scales, kept @ (vectors.T @ (scale * gradient)) / scale


@njit(**SERIAL)
def step_of(sums, widths, balance, from_prior):
    """One Gauss-Newton step of both terms and the prior: the twist (6,) from the left, and its information (6, 6).

    sums: (2, SUMS) float64 of geometry and colour. widths: (3,) float64, the scales of geometry and grey and the grey
    offset that the sums were made with; replaced by those of the next iteration, which are never so narrow that a
    better pose could not be found any more. from_prior: (6,) twist from the pose expected to the present one.
    """
    geometry, color = sums[0], sums[1]
    spread = min(max(spread_of(geometry), 0.2), 6.0)
    grey_spread = max(spread_of(color), 3.0 / widths[1])
    widths[0] = 1.2 * spread
    widths[1] = min(max(1.1 * grey_spread * widths[1], 3.0), 30.0)
    widths[2] = color[R] / max(color[COUNT], 1.0)

    triangle = slice(TRIANGLE, TRIANGLE + 6)
    hessian, gradient = held(symmetric(geometry), geometry[triangle], balance.degenerate)
    color_share = balance.color_weight / grey_spread**2
    hessian = balance.share * (hessian / spread**2 + color_share * symmetric(color))
    gradient = balance.share * (gradient / spread**2 + color_share * color[triangle])
    for k in range(6):
        std = balance.prior_translation if k < 3 else balance.prior_rotation
        hessian[k, k] += 1 / std**2
        gradient[k] += from_prior[k] / std**2
    return -np.linalg.solve(hessian, gradient), hessian


SAMPLED = 16  # every so-many-th point of the model is compared
SURE = np.float32(0.7)  # trust of a point that is compared ...
FEWEST = 100  # ... unless fewer are; then all count


class Compared(NamedTuple):
    """What `compare` counts."""

    same: int  # points of one surface in both, whose residuals are written
    fitting: int  # of them within four standard deviations
    measured: int  # points with depth in the frame
    away: int  # of them where the frame's surface is another one
    correlation: float  # of live and model grey; 0 where one of them is flat
    model_std: float  # standard deviation of grey where both are known, grey levels; 0 where that is hardly anywhere
    live_std: float


@njit(**SERIAL)
def compare(points, trust, T, live, camera, noise, model_grey, out):
    """A sample of the model's points (N, 7) at T = T_live_view beside the live frame.

    live: its grey image is of half the size, so that what noise is left of two greys does not make them differ.
    model_grey: (N,) that of the points there. out: (3, N // SAMPLED + 1) float32, of each point of one surface in both
    its depth, the distance along its normal, and along the ray, metres.
    """
    depth, normals, small = live
    width, height, fx, fy, cx, cy = camera
    half = np.float32(0.5)
    n_sure = 0
    for i in range(0, len(points), SAMPLED):
        n_sure += trust[i] >= SURE
    greys = np.empty((2, out.shape[1]), np.float32)
    same, fitting, measured, away, known = 0, 0, 0, 0, 0
    for i in range(0, len(points), SAMPLED):
        if n_sure >= FEWEST and trust[i] < SURE:
            continue
        a, b, c = points[i, 0], points[i, 1], points[i, 2]
        x = T[0, 0] * a + T[0, 1] * b + T[0, 2] * c + T[0, 3]
        y = T[1, 0] * a + T[1, 1] * b + T[1, 2] * c + T[1, 3]
        z = T[2, 0] * a + T[2, 1] * b + T[2, 2] * c + T[2, 3]
        if z <= np.float32(0.05):
            continue
        u, v = project(camera, x, y, z)
        if not (u >= 0 and v >= 0 and u < width - 1 and v < height - 1):
            continue
        column, row = int(u + half), int(v + half)
        d = depth[row, column]
        other = d > 0 and abs(d - z) > np.float32(0.1)
        measured += d > 0
        away += other
        if d > 0 and not other:
            a, b, c = points[i, 3], points[i, 4], points[i, 5]
            nx = T[0, 0] * a + T[0, 1] * b + T[0, 2] * c
            ny = T[1, 0] * a + T[1, 1] * b + T[1, 2] * c
            nz = T[2, 0] * a + T[2, 1] * b + T[2, 2] * c
            facing = normals[row, column, 0] * nx + normals[row, column, 1] * ny + normals[row, column, 2] * nz
            if facing > np.float32(0.77):
                qx, qy = (np.float32(column) - cx) / fx, (np.float32(row) - cy) / fy
                along = nx * (qx * d - x) + ny * (qy * d - y) + nz * (d - z)
                out[0, same], out[1, same] = z, along
                out[2, same] = along / max(abs(nx * qx + ny * qy + nz), np.float32(0.1))
                fitting += abs(along) < np.float32(4) * depth_sigma(z, noise)
                same += 1
        row, column = int(v * half), int(u * half)
        if row < small.shape[0] and column < small.shape[1] and model_grey[i] >= 0 and not other:
            greys[0, known], greys[1, known] = model_grey[i], small[row, column]
            known += 1
    if known < 50:
        return Compared(same, fitting, measured, away, 0.0, 0.0, 0.0)
    mean_0, mean_1 = 0.0, 0.0
    for k in range(known):
        mean_0 += greys[0, k]
        mean_1 += greys[1, k]
    mean_0, mean_1 = mean_0 / known, mean_1 / known
    squares_0, squares_1, products = 0.0, 0.0, 0.0
    for k in range(known):
        p, q = greys[0, k] - mean_0, greys[1, k] - mean_1
        squares_0 += p * p
        squares_1 += q * q
        products += p * q
    flat = squares_0 <= 0 or squares_1 <= 0
    correlation = 0.0 if flat else products / np.sqrt(squares_0 * squares_1)
    return Compared(same, fitting, measured, away, correlation, np.sqrt(squares_0 / known), np.sqrt(squares_1 / known))
