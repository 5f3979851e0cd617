"""Laws of the pinhole camera."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from semslam.camera import Camera, is_fisheye

CAMERA = Camera(64, 48, 52.0, 53.0, 31.0, 24.5)
DISTORTED = Camera(64, 48, 52.0, 53.0, 31.0, 24.5, (0.2, -0.3, 0.001, 0.002, 0.1))


def pixels(camera: Camera) -> np.ndarray:
    """(H, W, 2) the pixel (u, v) of each pixel."""
    return np.stack(np.meshgrid(np.arange(camera.width), np.arange(camera.height)), axis=-1).astype(np.float64)


def test_projecting_what_was_back_projected_is_the_pixel():
    depth = np.random.default_rng(0).uniform(0.5, 5, CAMERA.shape)
    np.testing.assert_allclose(CAMERA.project(CAMERA.backproject(depth)), pixels(CAMERA), atol=1e-9)


def test_back_projection_is_that_of_the_obvious_loop():
    depth = np.random.default_rng(1).uniform(0.5, 5, CAMERA.shape)
    inverse_K = np.linalg.inv(CAMERA.K)
    vertices = CAMERA.backproject(depth)
    for u, v in ((0, 0), (63, 47), (31, 24), (5, 40)):
        np.testing.assert_allclose(vertices[v, u], depth[v, u] * (inverse_K @ [u, v, 1]), atol=1e-12)


def test_back_projection_keeps_float32_and_leaves_no_reading_at_zero():
    depth = np.zeros(CAMERA.shape, np.float32)
    depth[3, 4] = 2
    vertices = CAMERA.backproject(depth)
    assert vertices.dtype == np.float32 and np.count_nonzero(vertices.any(axis=-1)) == 1


def test_the_middle_of_the_camera_looks_straight_ahead():
    np.testing.assert_allclose(CAMERA.project(np.array([0.0, 0.0, 3.0])), [CAMERA.cx, CAMERA.cy])


def test_right_and_down_are_positive():
    u, v = CAMERA.project(np.array([0.1, 0.2, 1.0]))
    assert u > CAMERA.cx and v > CAMERA.cy


def test_depth_of_another_size_is_refused():
    with pytest.raises(ValueError, match="depth is 48x64, the camera 64x48"):
        CAMERA.backproject(np.ones((64, 48)))


@pytest.mark.parametrize("size", [(32, 24), (128, 96), (50, 31), (64, 48)])
def test_resizing_there_and_back_is_the_same_camera(size):
    there = CAMERA.resized(*size)
    assert (there.width, there.height) == size
    back = there.resized(CAMERA.width, CAMERA.height)
    np.testing.assert_allclose(back.K, CAMERA.K, atol=1e-9)


def test_of_a_width_it_keeps_its_shape():
    assert CAMERA.of_width(32) == CAMERA.resized(32, 24)
    assert CAMERA.of_width(64) is CAMERA


def test_resizing_keeps_the_corners_of_the_image_where_they_are():
    """The outer edge of the first pixel is at -0.5 in every size."""
    half = CAMERA.resized(32, 24)
    for corner in ((-0.5, -0.5), (63.5, 47.5)):
        ray = np.linalg.inv(CAMERA.K) @ [*corner, 1]
        edge = [-0.5 if x < 0 else size - 0.5 for x, size in zip(corner, (32, 24))]
        np.testing.assert_allclose(half.project(ray), edge, atol=1e-9)


def test_resizing_a_camera_goes_with_resizing_its_image():
    """A half-size image, averaged from blocks, shows a point where the half-size camera projects it."""
    point = np.array([0.11, -0.07, 1.3])
    u, v = pixels(CAMERA)[..., 0], pixels(CAMERA)[..., 1]
    at = CAMERA.project(point)
    image = np.exp(-0.5 * ((u - at[0]) ** 2 + (v - at[1]) ** 2) / 3.0**2)
    small = cv2.resize(image, (32, 24), interpolation=cv2.INTER_AREA)
    grid = pixels(CAMERA.resized(32, 24))
    found = (grid * small[..., None]).sum((0, 1)) / small.sum()
    np.testing.assert_allclose(found, CAMERA.resized(32, 24).project(point), atol=0.02)


def test_resizing_keeps_the_distortion():
    assert DISTORTED.resized(32, 24).distortion == DISTORTED.distortion


def test_undistorting_without_distortion_changes_nothing():
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    assert np.array_equal(CAMERA.undistort(image), image)
    zero = Camera(64, 48, 52.0, 53.0, 31.0, 24.5, (0.0,) * 5)
    assert np.array_equal(zero.undistort(image, nearest=True), image)


def test_an_undistorted_point_is_where_the_plain_camera_projects_it():
    camera = Camera(320, 240, 260.0, 262.0, 160.0, 118.0, (0.2, -0.3, 0.001, 0.002, 0.1))
    point = np.array([0.4, -0.25, 1.0])
    at = cv2.projectPoints(point[None], np.zeros(3), np.zeros(3), camera.K, np.array(camera.distortion))[0].ravel()
    grid = pixels(camera)
    spot = np.exp(-0.5 * ((grid - at) ** 2).sum(-1) / 2.0**2).astype(np.float32)
    straight = camera.undistort(spot)
    found = (grid * straight[..., None]).sum((0, 1)) / straight.sum()
    np.testing.assert_allclose(found, camera.undistorted().project(point), atol=0.15)
    assert np.linalg.norm(at - camera.project(point)) > 2, "the distortion is not too small to notice"


def test_a_fisheye_is_undistorted_by_kannala_and_brandts_formula():
    """theta_d = theta (1 + k1 theta^2 + ... + k4 theta^8), r = f theta_d: where a point is, before and after."""
    k = (0.003, 0.0007, -0.0021, 0.0002)  # about those of TUM-VI
    camera = Camera(512, 512, 190.98, 190.97, 254.93, 256.90, k, fisheye=True)
    point = np.array([0.7, -0.5, 1.0])
    radius = np.hypot(*point[:2])
    theta = np.arctan(radius)
    theta_d = theta * (1 + sum(c * theta ** (2 * i) for i, c in enumerate(k, 1)))
    at = np.array([camera.fx, camera.fy]) * theta_d * point[:2] / radius + [camera.cx, camera.cy]
    assert np.linalg.norm(at - camera.project(point)) > 20
    grid = pixels(camera)
    spot = np.exp(-0.5 * ((grid - at) ** 2).sum(-1) / 2.0**2).astype(np.float32)
    straight = camera.undistort(spot)
    found = (grid * straight[..., None]).sum((0, 1)) / straight.sum()
    np.testing.assert_allclose(found, camera.undistorted().project(point), atol=0.3)
    assert camera.undistorted() == Camera(512, 512, 190.98, 190.97, 254.93, 256.90)
    u, v = np.rint(at).astype(int)
    np.testing.assert_allclose(camera.undistorted_rays()[v, u], point[:2], atol=0.01)


@pytest.mark.parametrize(("name", "fisheye"), [("equidistant", True), ("KANNALA_BRANDT4", True), ("plumb_bob", False)])
def test_models_of_distortion_are_known_by_their_names(name, fisheye):
    assert is_fisheye(name) is fisheye
    with pytest.raises(ValueError, match="distortion model 'ftheta' is not read: known are"):
        is_fisheye("ftheta")


def test_nearest_undistortion_invents_no_values():
    labels = np.random.default_rng(0).choice(np.array([3, 17, 255], np.uint8), (48, 64))
    assert set(np.unique(DISTORTED.undistort(labels, nearest=True))) <= {0, 3, 17, 255}


def test_an_undistorted_camera_has_no_distortion_and_the_same_matrix():
    assert DISTORTED.undistorted().distortion is None and np.array_equal(DISTORTED.undistorted().K, DISTORTED.K)


@pytest.mark.parametrize(
    "values",
    [
        (0, 48, 50.0, 50.0, 1, 1),
        (64, 48, -50.0, 50.0, 1, 1),
        (64, 48, 50.0, -480.0, 1, 1),
        (64, 48, np.nan, 50.0, 1, 1),
    ],
)
def test_an_impossible_camera_is_refused(values):
    with pytest.raises(ValueError, match="camera"):
        Camera(*values)


def test_equal_cameras_are_equal_and_one_key():
    assert {CAMERA: 1}[Camera(64, 48, 52.0, 53.0, 31.0, 24.5)] == 1
