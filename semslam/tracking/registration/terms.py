"""The two error terms of registration with their Jacobians, compiled.

The unknown is T_live_view, which takes points of the view's camera (the map as predicted) to the live camera, and
its small change exp(twist) from the left, twist = (translation, rotation) as in `poses`.

Every reduction adds fixed blocks of points in float32 and the blocks in float64, so that the result is the same for
any number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange

from semslam.compiled import PARALLEL, SERIAL, Pinhole, prefetch
from semslam.engine.depth_filter import depth_sigma
from semslam.engine.fusion_kernels import MOST_OF_DEPTH
from semslam.tracking.registration.model import BLOCK, GREY, N_X, N_Y, N_Z, ROOT, X, Y, Z

AHEAD = 16  # points before its turn that what a point needs of the images is asked for
# What is found for a block at a pose, each (BLOCK,) float32, one after the other: the point in the live camera, the
# inverse of its depth, its pixel; there the live depth and normal; the place within four pixels of grey, and these.
PLACED = 16
L_X, L_Y, L_Z, L_I, U, V, DEPTH, D_X, D_Y, D_Z, F_U, F_V, G_00, G_01, G_10, G_11 = (k * BLOCK for k in range(PLACED))
# Rows of a term: six of sqrt(w) J, sqrt(w) r, r, w, and for colour the difference of grey with exposure still in it.
ROWS = 10
ROOM, APART = np.float32(5), np.float32(3)  # metres, and standard deviations: see `most_apart`
FEW_BLOCKS = 20  # are done before another thread has begun

# Columns of a term's sums: 21 of the upper triangle of J^T W J, 6 of J^T W r, then
# the weighted sum of r^2, the sum of weights, the count of inliers, the plain sum of r and of r^2.
TRIANGLE, SUMS = 21, 32
WRR, W, COUNT, R, RR = 27, 28, 29, 30, 31


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
    far: np.float32  # metres between the points of a pair, at most: see `most_apart`
    cosine: np.float32  # of the angle between their normals, at least
    geometry_scale: np.float32  # of the geometric residual, in units of the sensor's noise
    tukey: np.float32
    grey_scale: np.float32  # of the grey residual, grey levels
    grey_offset: np.float32  # grey levels: exposure, live minus model
    gradient2: np.float32  # least squared gradient of the image
    huber: np.float32
    border: np.float32  # loss of weight towards the border of the image


@njit(inline="always")
def most_apart(far, z, sigma):
    """How far points of one surface may seem to be apart at depth z, metres: gates are made for rooms, and farther away
    the noise of depth, sigma, outgrows them."""
    return max(far, min(APART * sigma, MOST_OF_DEPTH * z)) if z > ROOM else far


@njit(**SERIAL)
def dot(a, b, products):
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
def _reduce(rows, out):
    """Sums of products of a term's rows (ROWS, BLOCK)."""
    products = np.empty(BLOCK // 2, np.float32)
    ones = np.ones(BLOCK, np.float32)
    m = 0
    for a in range(6):
        for b in range(a, 6):
            out[m] = dot(rows[a], rows[b], products)
            m += 1
    for a in range(6):
        out[m] = dot(rows[a], rows[6], products)
        m += 1
    out[WRR] = dot(rows[6], rows[6], products)
    out[RR] = dot(rows[7], rows[7], products)
    out[W] = dot(rows[8], ones, products)
    out[R] = dot(rows[9], ones, products)


@njit(**SERIAL)
def _place(model, T, camera, grey_camera, found, pixels):
    """Take a block of points (FIELDS * BLOCK,) to the live camera: their pixels (2 * BLOCK,) int32, v * W + u, of depth
    and, rounded down, of grey; -1 outside. Without branches, over whole vectors."""
    width, height, fx, fy, cx, cy = camera
    grey_width, grey_height, gx, gy, gcx, gcy = grey_camera
    t00, t01, t02, t03 = T[0, 0], T[0, 1], T[0, 2], T[0, 3]
    t10, t11, t12, t13 = T[1, 0], T[1, 1], T[1, 2], T[1, 3]
    t20, t21, t22, t23 = T[2, 0], T[2, 1], T[2, 2], T[2, 3]
    zero, half, one, near = np.float32(0), np.float32(0.5), np.float32(1), np.float32(0.05)
    for j in range(BLOCK):
        a, b, c = model[X + j], model[Y + j], model[Z + j]
        x = t00 * a + t01 * b + t02 * c + t03
        y = t10 * a + t11 * b + t12 * c + t13
        z = t20 * a + t21 * b + t22 * c + t23
        inverse = one / z
        u, v = x * inverse * fx + cx + half, y * inverse * fy + cy + half
        seen = (z >= near) & (u >= zero) & (v >= zero) & (u < np.float32(width)) & (v < np.float32(height))
        pixels[j] = np.int32(v) * np.int32(width) + np.int32(u) if seen else np.int32(-1)
        found[U + j], found[V + j] = np.floor(u), np.floor(v)
        u, v = x * inverse * gx + gcx, y * inverse * gy + gcy
        u_0, v_0 = np.floor(u), np.floor(v)
        seen &= (u >= zero) & (v >= zero) & (u < np.float32(grey_width - 1)) & (v < np.float32(grey_height - 1))
        seen &= model[GREY + j] >= zero
        pixels[BLOCK + j] = np.int32(v_0) * np.int32(grey_width) + np.int32(u_0) if seen else np.int32(-1)
        found[L_X + j], found[L_Y + j], found[L_Z + j], found[L_I + j] = x, y, z, inverse
        found[F_U + j], found[F_V + j] = u - u_0, v - v_0


@njit(**SERIAL)
def _look_up(live, found, pixels):
    """Depth, normals and greys at a block's pixels; returns how many are in the image, and with depth."""
    depth, normals, image = live
    flat_depth, flat_normals, flat_image = depth.reshape(-1), normals.reshape(-1), image.reshape(-1)
    grey_width = image.shape[1]
    visible, measured = 0, 0
    for j in range(BLOCK):
        ahead = pixels[min(j + AHEAD, BLOCK - 1)]
        if ahead >= 0:
            prefetch(flat_depth, np.int64(ahead))
            prefetch(flat_normals, 3 * np.int64(ahead))
        ahead = pixels[BLOCK + min(j + AHEAD, BLOCK - 1)]
        if ahead >= 0:
            prefetch(flat_image, np.int64(ahead))
            prefetch(flat_image, np.int64(ahead) + grey_width)
        found[DEPTH + j] = np.float32(0)
        if pixels[j] < 0:
            continue
        visible += 1
        p = np.uint64(pixels[j])
        d = flat_depth[p]
        if d > 0:
            measured += 1
            found[DEPTH + j] = d
            p *= np.uint64(3)
            found[D_X + j] = flat_normals[p]
            found[D_Y + j] = flat_normals[p + np.uint64(1)]
            found[D_Z + j] = flat_normals[p + np.uint64(2)]
        if pixels[BLOCK + j] >= 0:
            p = np.uint64(pixels[BLOCK + j])
            found[G_00 + j], found[G_01 + j] = flat_image[p], flat_image[p + np.uint64(1)]
            p += np.uint64(grey_width)
            found[G_10 + j], found[G_11 + j] = flat_image[p], flat_image[p + np.uint64(1)]
    return visible, measured


@njit(**SERIAL)
def _geometry(model, T, camera, gates, found, pixels, rows):
    """The rows of the geometric term, 0 for points that take no part; returns how many do. The pixel of grey of those
    that are of another surface than the live depth there becomes -1."""
    _, _, fx, fy, cx, cy = camera
    t00, t01, t02 = T[0, 0], T[0, 1], T[0, 2]
    t10, t11, t12 = T[1, 0], T[1, 1], T[1, 2]
    t20, t21, t22 = T[2, 0], T[2, 1], T[2, 2]
    far, cosine, widest, border = gates.far, gates.cosine, gates.geometry_scale, gates.border
    tukey, zero, one = gates.tukey, np.float32(0), np.float32(1)
    count = 0
    for j in range(BLOCK):
        x, y, z, d = found[L_X + j], found[L_Y + j], found[L_Z + j], found[DEPTH + j]
        a, b, c = model[N_X + j], model[N_Y + j], model[N_Z + j]
        nx = t00 * a + t01 * b + t02 * c
        ny = t10 * a + t11 * b + t12 * c
        nz = t20 * a + t21 * b + t22 * c
        px, py = x * found[L_I + j], y * found[L_I + j]
        slope2 = (px * px + py * py) * border
        root = model[ROOT + j] / np.sqrt(one + slope2 * slope2)
        qx, qy = (found[U + j] - cx) / fx * d, (found[V + j] - cy) / fy * d
        dx, dy, dz = qx - x, qy - y, d - z
        sigma = depth_sigma(z, gates)
        most = most_apart(far, z, sigma)
        same = (dx * dx + dy * dy + dz * dz <= most * most) & (
            found[D_X + j] * nx + found[D_Y + j] * ny + found[D_Z + j] * nz >= cosine
        )
        pixels[BLOCK + j] = pixels[BLOCK + j] if same | (d <= zero) else np.int32(-1)
        r = nx * dx + ny * dy + nz * dz
        e = r / (sigma * widest * tukey)
        e2 = e * e
        fits = same & (d > zero) & (e2 < one)
        weight = (one - e2) * root
        s = weight / sigma  # the square root of Tukey's weight, over the noise
        rows[j] = -s * nx if fits else zero
        rows[BLOCK + j] = -s * ny if fits else zero
        rows[2 * BLOCK + j] = -s * nz if fits else zero
        rows[3 * BLOCK + j] = -s * (qy * nz - d * ny) if fits else zero
        rows[4 * BLOCK + j] = -s * (d * nx - qx * nz) if fits else zero
        rows[5 * BLOCK + j] = -s * (qx * ny - qy * nx) if fits else zero
        rows[6 * BLOCK + j] = s * r if fits else zero
        rows[7 * BLOCK + j] = r if fits else zero
        rows[8 * BLOCK + j] = weight * weight if fits else zero
        rows[9 * BLOCK + j] = zero
        found[DEPTH + j] = root  # for the other term
        count += np.int64(fits)
    return count


@njit(**SERIAL)
def _color(model, camera, gates, found, pixels, rows):
    """The rows of the term of grey, after `_geometry`; returns how many points take part."""
    _, _, gx, gy, _, _ = camera
    offset, gradient2, scale = gates.grey_offset, gates.gradient2, gates.grey_scale
    reach, zero, one = gates.huber * gates.grey_scale, np.float32(0), np.float32(1)
    count = 0
    for j in range(BLOCK):
        x, y, z, inverse, root = found[L_X + j], found[L_Y + j], found[L_Z + j], found[L_I + j], found[DEPTH + j]
        fu, fv = found[F_U + j], found[F_V + j]
        i00, i01, i10, i11 = found[G_00 + j], found[G_01 + j], found[G_10 + j], found[G_11 + j]
        du = (one - fv) * (i01 - i00) + fv * (i11 - i10)
        dv = (one - fu) * (i10 - i00) + fu * (i11 - i01)
        takes = (pixels[BLOCK + j] >= 0) & (du * du + dv * dv >= gradient2)
        exposed = (one - fv) * (i00 + fu * (i01 - i00)) + fv * (i10 + fu * (i11 - i10)) - model[GREY + j]
        r = exposed - offset
        weight = min(one, reach / max(abs(r), np.float32(1e-6))) * (root * root)
        s = np.sqrt(weight) / scale
        jx, jy = du * gx * inverse, dv * gy * inverse
        jz = -(jx * (x * inverse) + jy * (y * inverse))
        rows[j] = s * jx if takes else zero
        rows[BLOCK + j] = s * jy if takes else zero
        rows[2 * BLOCK + j] = s * jz if takes else zero
        rows[3 * BLOCK + j] = s * (jz * y - jy * z) if takes else zero
        rows[4 * BLOCK + j] = s * (jx * z - jz * x) if takes else zero
        rows[5 * BLOCK + j] = s * (jy * x - jx * y) if takes else zero
        rows[6 * BLOCK + j] = s * r if takes else zero
        rows[7 * BLOCK + j] = r if takes else zero
        rows[8 * BLOCK + j] = weight if takes else zero
        rows[9 * BLOCK + j] = exposed if takes else zero
        count += np.int64(takes)
    return count


@njit(**SERIAL)
def _of_block(points, T, live, camera, grey_camera, gates, out):
    """The sums (3, SUMS) of one block of a model; see `linearize`."""
    found, pixels = np.zeros(PLACED * BLOCK, np.float32), np.empty(2 * BLOCK, np.int32)
    rows = np.empty((ROWS, BLOCK), np.float32)
    flat = rows.reshape(-1)
    _place(points, T, camera, grey_camera, found, pixels)
    visible, measured = _look_up(live, found, pixels)
    out[0, COUNT] = _geometry(points, T, camera, gates, found, pixels, flat)
    _reduce(rows, out[0])
    out[1, COUNT] = _color(points, grey_camera, gates, found, pixels, flat)
    _reduce(rows, out[1])
    for k in range(2, SUMS):
        out[2, k] = 0
    out[2, 0] = visible
    out[2, 1] = measured


@njit(**PARALLEL)
def _linearize_on_all_threads(model, T, live, camera, grey_camera, gates, out):
    for block_ in prange(len(model)):
        block = np.int64(block_)  # prange counts unsigned
        _of_block(model[block].reshape(-1), T, live, camera, grey_camera, gates, out[block])


@njit(**SERIAL)
def _linearize_on_one_thread(model, T, live, camera, grey_camera, gates, out):
    for block in range(len(model)):
        _of_block(model[block].reshape(-1), T, live, camera, grey_camera, gates, out[block])


def linearize(
    model: np.ndarray,
    T: np.ndarray,
    live: Live,
    camera: Pinhole,
    grey_camera: Pinhole,
    gates: Gates,
    out: np.ndarray,
) -> None:
    """Both error terms of a model's points against the live frame, at T = T_live_view.

    Geometry: r = n . (p - x), x the model point and n its normal in the live camera, p the live point at the pixel
    nearest to the projection of x (projective data association, Blais and Levine 1995; point-to-plane, Chen and
    Medioni 1992). Perturbing the model by exp(twist) equals perturbing p by its inverse, so J = -(n, p x n), exactly.
    Colour: r = I(pi(x)) - c - offset, with J = grad I . d pi / dx . (1, -[x]x), grad I that of the bilinear
    interpolation.

    camera: of depth and normals; grey_camera: of the grey image.
    out (blocks, 3, SUMS) float32: geometry, colour, and counts [visible points, of them with live depth].
    """
    few = len(model) <= FEW_BLOCKS
    (_linearize_on_one_thread if few else _linearize_on_all_threads)(
        model, T, live, camera, grey_camera, gates, out,
    )  # fmt: skip
