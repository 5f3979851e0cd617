"""Depth and ids in another size stay where colour and the camera's rays are."""

from __future__ import annotations

import numpy as np
import pytest

from semslam.camera import Camera
from semslam.frame import Frame
from semslam.images.resizing import resized_depth, resized_ids
from semslam.perception import Perception, PerceptionConfig
from sequences.resampling import resampled_depth

CAMERA = Camera(640, 480, 520.0, 520.0, 319.5, 239.5)
SIZES = [(320, 240), (213, 160), (160, 120), (80, 60), (1280, 960)]
SLANTS = [(0.8, 0.0), (0.0, 0.8)]


def wall(camera: Camera, slant: tuple[float, float]) -> np.ndarray:
    """Exact z-depth of a wall 2 m away that recedes along x or y."""
    rays = camera.backproject(np.ones(camera.shape, np.float32)).astype(np.float64)
    return (2 / (1 + rays[:, :, 0] * slant[0] + rays[:, :, 1] * slant[1])).astype(np.float32)


@pytest.mark.parametrize("slant", SLANTS)
@pytest.mark.parametrize("size", SIZES)
def test_a_slanted_wall_stays_where_it_is_in_every_size(size, slant):
    exact = wall(CAMERA.resized(*size), slant)
    error = resized_depth(wall(CAMERA, slant), size)[2:-2, 2:-2] - exact[2:-2, 2:-2]
    assert np.abs(error).max() < 1e-4


@pytest.mark.parametrize("slant", SLANTS)
def test_a_run_at_another_width_and_an_aligned_depth_image_keep_it_there_too(slant):
    depth, small = wall(CAMERA, slant), CAMERA.resized(160, 120)
    perception = Perception(PerceptionConfig(labels="none", width=160), CAMERA)
    frame = Frame(0, 0.0, np.zeros((*CAMERA.shape, 3), np.uint8), CAMERA, depth)
    for found in (perception(frame).depth, resampled_depth(depth, CAMERA, small)):
        inside = (slice(8, -8), slice(8, -8))  # of the border that perception leaves out
        assert np.abs(found - wall(small, slant))[inside].max() < 1e-4


def test_no_reading_appears_between_two_surfaces_and_none_grows_into_a_hole():
    depth = np.full(CAMERA.shape, 1.0, np.float32)
    depth[:, 301:] = 2.0
    depth[201:, :] = 0
    for size in SIZES:
        assert set(np.unique(resized_depth(depth, size))) == {0, 1, 2}
        np.testing.assert_array_equal(resized_depth(depth, size) > 0, resized_ids(depth, size) > 0)


@pytest.mark.parametrize("factor", [3, 5])
def test_ids_are_those_at_the_pixels_centres(factor):
    ids = np.arange(60 * 45, dtype=np.uint16).reshape(45, 60)
    half = factor // 2
    np.testing.assert_array_equal(resized_ids(ids, (60 // factor, 45 // factor)), ids[half::factor, half::factor])


def test_what_has_the_size_already_is_not_copied():
    depth = wall(CAMERA, SLANTS[0])
    assert resized_depth(depth, (640, 480)) is depth and resized_ids(depth, (640, 480)) is depth
