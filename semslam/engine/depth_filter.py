"""From a raw depth image to measurements worth fusing: smoothed depth, normals and the sensor's noise.

The loops are compiled with Numba; the plain NumPy versions that judge them live in tests/test_depth_filter.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numba as nb
import numpy as np

from semslam.compiled import PARALLEL
from semslam.engine.vectors import GROUP, LANES, to_triples

f32 = np.float32


class Noise(NamedTuple):
    """Standard deviation of a depth z, metres: base + quadratic (z - 0.4)^2 (Nguyen et al. 2012, eq. 3)."""

    base: np.float32  # metres
    quadratic: np.float32  # 1 / metre

    @staticmethod
    def of(base: float, quadratic: float) -> Noise:
        return Noise(f32(base), f32(quadratic))


@nb.njit(inline="always")
def depth_sigma(z, noise):
    """The `Noise` of a depth z: axial standard deviation, metres; `camera.depth_std`, compiled."""
    return noise.base + noise.quadratic * (z - f32(0.4)) * (z - f32(0.4))


@nb.njit(**PARALLEL)
def bilateral(depth, radius, near, far, noise, out):
    """Edge-preserving mean of depth (H, W) over a (2 radius + 1) square window, metres.

    The range weight is Tukey's biweight (1 - (e / 3 s)^2)^2, zero beyond three standard deviations s of the
    difference of two measurements: unlike a Gaussian it gives other surfaces exactly no weight, and it is cheap.
    Depth outside near..far becomes 0.
    """
    height, width = depth.shape
    spatial = f32(1) / (f32(2) * f32(0.5 * radius + 0.5) * f32(0.5 * radius + 0.5))
    for v_ in nb.prange(height):
        v = np.int64(v_)  # prange counts unsigned
        here = depth[v]
        scale = np.empty(width, np.float32)
        for u in range(width):
            sigma = depth_sigma(here[u], noise)
            scale[u] = f32(1) / (f32(18) * sigma * sigma)
        total, weight = np.zeros(width, np.float32), np.zeros(width, np.float32)
        padded = np.full(width + 2 * radius, np.float32(np.inf))  # out of the image there is no surface near
        for dv in range(max(-radius, -v), min(radius, height - 1 - v) + 1):
            padded[radius : radius + width] = depth[v + dv]
            for du in range(-radius, radius + 1):
                w_space = np.exp(-f32(dv * dv + du * du) * spatial)
                # a slice that starts at 0: the compiler then vectorises the loop
                there = padded[radius + du : radius + du + width]
                for u in range(width):
                    e = there[u] - here[u]
                    likeness = f32(1) - e * e * scale[u]
                    inside = likeness > f32(0)  # false for NaN and infinity too
                    w = likeness * likeness * w_space
                    total[u] += w * e if inside else f32(0)
                    weight[u] += w if inside else f32(0)
        for u in range(width):
            d = depth[v, u]
            # NaN fails both comparisons and so becomes "none"
            out[v, u] = d + total[u] / weight[u] if d >= near and d <= far else f32(0)


@nb.njit(inline="always")
def slope(minus, here, plus, jump):
    """Depth difference a step along one image axis, and whether the surface goes on to a side at all.

    The mean of both sides where both belong to the surface, else the side that does: a pixel at the border of a
    surface keeps its normal.
    """
    left = (minus > f32(0)) & (abs(here - minus) < jump)
    right = (plus > f32(0)) & (abs(plus - here) < jump)
    one = here - minus if left else plus - here
    return f32(0.5) * (plus - minus) if left & right else one, left | right


@nb.njit(**PARALLEL)
def normals_of(depth, camera, noise, out):
    """Unit normals (H, W, 3), camera frame, towards the camera, of a smoothed depth image; 0 where there is none.

    For a depth image z(u, v) the normal is along (fx z_u, fy z_v, -(z + (u - cx) z_u + (v - cy) z_v)), the cross
    product of the vertex map's derivatives. Differences are taken over two pixels, which halves the noise of the
    angle, or over one where the surface ends sooner. A pixel that continues to no side, horizontally or vertically,
    floats between two surfaces ("flying pixel") and gets no normal.
    """
    height, width = depth.shape
    fx, fy, cx, cy = camera.fx, camera.fy, camera.cx, camera.cy
    outside = np.zeros(width, np.float32)
    for v_ in nb.prange(height):
        v = np.int64(v_)  # prange counts unsigned
        padded = np.zeros(width + 4, np.float32)  # so that the loop has no branches, and runs over whole vectors
        padded[2 : width + 2] = depth[v]
        above_2, above = depth[v - 2] if v >= 2 else outside, depth[v - 1] if v >= 1 else outside
        below_2, below = depth[v + 2] if v < height - 2 else outside, depth[v + 1] if v < height - 1 else outside
        row, columns = out[v].reshape(-1), np.empty(3 * GROUP, np.float32)
        for first in range(0, width, GROUP):
            count = min(width - first, GROUP)
            # slices that start at 0: the compiler then vectorises the loop
            here = padded[first:]
            a_2, a_1, b_1, b_2 = above_2[first:], above[first:], below[first:], below_2[first:]
            for u in range(count):
                d = here[u + 2]
                # 80 degrees of tilt, plus the noise of a difference
                differs = f32(3) * depth_sigma(d, noise)
                jump_u = f32(2) * f32(5.7) * d / fx + differs
                jump_v = f32(2) * f32(5.7) * d / fy + differs
                z_u, wide = slope(here[u], d, here[u + 4], jump_u)
                z_near, ok_u = slope(here[u + 1], d, here[u + 3], jump_u)
                z_u = z_u * f32(0.5) if wide else z_near
                ok_u |= wide
                z_v, wide = slope(a_2[u], d, b_2[u], jump_v)
                z_near, ok_v = slope(a_1[u], d, b_1[u], jump_v)
                z_v = z_v * f32(0.5) if wide else z_near
                ok_v |= wide
                n_x = fx * z_u
                n_y = fy * z_v
                n_z = -(d + (f32(u + first) - cx) * z_u + (f32(v) - cy) * z_v)
                length = np.sqrt(n_x * n_x + n_y * n_y + n_z * n_z)
                # a surface seen edge-on, or from behind: its depth says little about where it is
                facing = n_x * (f32(u + first) - cx) / fx + n_y * (f32(v) - cy) / fy + n_z
                ok = (d > f32(0)) & ok_u & ok_v & (length > f32(0)) & (facing < f32(0))
                columns[u] = n_x / length if ok else f32(0)
                columns[GROUP + u] = n_y / length if ok else f32(0)
                columns[2 * GROUP + u] = n_z / length if ok else f32(0)
            whole = count - count % LANES
            for u in range(0, whole, LANES):
                to_triples(columns, u, GROUP, row, 3 * (first + u))
            for u in range(whole, count):
                for k in range(3):
                    row[3 * (first + u) + k] = columns[k * GROUP + u]
