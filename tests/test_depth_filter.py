"""Depth filtering and normals against planes with known answers and against the obvious loops."""

from __future__ import annotations

import numpy as np

from semslam.camera import Camera
from semslam.compiled import Pinhole
from semslam.engine import depth_filter

f32 = np.float32
CAMERA = Camera(64, 48, 60.0, 62.0, 31.5, 23.5)
NOISE = depth_filter.Noise.of(0.0012, 0.0019)


def plane_depth(normal: np.ndarray, distance: float) -> np.ndarray:
    """z (H, W) of the plane normal . X = -distance; the normal points to the camera."""
    v, u = np.mgrid[: CAMERA.height, : CAMERA.width]
    rays = np.stack([(u - CAMERA.cx) / CAMERA.fx, (v - CAMERA.cy) / CAMERA.fy, np.ones_like(u, float)], axis=-1)
    return (-distance / (rays @ normal)).astype(f32)


def normals(depth: np.ndarray) -> np.ndarray:
    out = np.empty((*depth.shape, 3), f32)
    depth_filter.normals_of(depth, Pinhole.of(CAMERA), NOISE, out)
    return out


def filtered(depth: np.ndarray, radius: int = 2) -> np.ndarray:
    out = np.empty_like(depth)
    depth_filter.bilateral(depth, radius, f32(0.3), f32(5), NOISE, out)
    return out


def plain_bilateral(depth: np.ndarray, radius: int) -> np.ndarray:
    """The same mean, pixel by pixel, in float64."""
    height, width = depth.shape
    out = np.zeros_like(depth)
    for v in range(height):
        for u in range(width):
            d = float(depth[v, u])
            if not 0.3 <= d <= 5:
                continue
            sigma = NOISE[0] + NOISE[1] * (d - 0.4) ** 2
            total = weights = 0.0
            for dv in range(-radius, radius + 1):
                for du in range(-radius, radius + 1):
                    if 0 <= v + dv < height and 0 <= u + du < width:
                        e = float(depth[v + dv, u + du]) - d
                        w = max(0.0, 1 - e**2 / (18 * sigma**2)) ** 2
                        w *= np.exp(-(dv**2 + du**2) / (2 * (0.5 * radius + 0.5) ** 2))
                        total += w * e
                        weights += w
            out[v, u] = d + total / weights
    return out


def test_a_tilted_plane_has_its_own_normal_everywhere():
    for normal in ([0, 0, -1.0], [0.5, 0.2, -0.84], [-0.3, 0.6, -0.75]):
        n = np.array(normal) / np.linalg.norm(normal)
        found = normals(plane_depth(n, 1.5))
        assert np.degrees(np.arccos(np.clip(found @ n, -1, 1))).max() < 2.5  # z is not linear along the image
        assert np.degrees(np.arccos(np.clip(found[5:-5, 5:-5] @ n, -1, 1))).mean() < 0.7


def test_normals_are_the_same_however_wide_the_image_is():
    rng = np.random.default_rng(0)
    wide = (2 + 0.01 * rng.standard_normal((20, 600))).astype(f32)
    for width in (5, 64, 255, 256, 257, 531):
        np.testing.assert_array_equal(normals(wide[:, :width].copy())[:, : width - 2], normals(wide)[:, : width - 2])


def test_normals_do_not_mix_two_surfaces():
    depth = np.full(CAMERA.shape, 1.0, f32)
    depth[:, 32:] = 2.0
    assert np.allclose(normals(depth), [0, 0, -1], atol=1e-6)


def test_a_flying_pixel_has_no_normal():
    depth = np.full(CAMERA.shape, 1.0, f32)
    depth[:, 32:] = 2.0
    depth[20, 31] = 1.5
    assert not normals(depth)[20, 31].any()


def test_pixels_without_depth_have_no_normal():
    depth = np.full(CAMERA.shape, 1.0, f32)
    depth[10:20, 10:20] = 0
    assert not normals(depth)[10:20, 10:20].any()


def test_the_filter_equals_the_obvious_loop():
    rng = np.random.default_rng(0)
    depth = (plane_depth(np.array([0.3, 0.1, -0.95]), 1.4) + rng.normal(0, 0.004, CAMERA.shape)).astype(f32)
    depth[:, 40:] += 0.5
    depth[rng.random(CAMERA.shape) < 0.1] = 0
    for radius in (0, 1, 2, 3):
        assert np.allclose(filtered(depth, radius), plain_bilateral(depth, radius), atol=2e-6)


def test_the_filter_keeps_a_flat_wall_and_a_step_as_they_are():
    depth = np.full(CAMERA.shape, 2.0, f32)
    depth[:, 30:] = 2.6
    assert np.array_equal(filtered(depth), depth)


def test_the_filter_takes_noise_away():
    rng = np.random.default_rng(1)
    depth = (2 + rng.normal(0, 0.006, CAMERA.shape)).astype(f32)
    assert np.abs(filtered(depth) - 2).mean() < 0.4 * np.abs(depth - 2).mean()


def test_depth_outside_the_range_and_nan_become_none():
    depth = np.full(CAMERA.shape, 2.0, f32)
    depth[0, 0], depth[0, 1], depth[0, 2], depth[0, 3] = 0.2, 6.0, np.nan, -1.0
    out = filtered(depth)
    assert not out[0, :4].any()
    assert np.all(out[5:] == 2)
