"""Keyframes that show the same surface are believed where they agree, and doubted where they do not."""

from __future__ import annotations

import numpy as np
import pytest

from semslam.camera import Camera
from semslam.depth.agreement import Keyframe, agreed

f32 = np.float32
CAMERA = Camera(80, 60, 70.0, 70.0, 39.5, 29.5)
ASIDE = np.eye(4)
ASIDE[0, 3] = 0.2  # metres to the right


def wall(T_world_camera: np.ndarray, off: float = 0.0, z: float = 2.0, log_std: float = 0.03) -> Keyframe:
    """A wall straight ahead, whose depth is said to be off by a share in the middle of the image."""
    depth = np.full(CAMERA.shape, z, f32)
    depth[20:40, 30:50] *= f32(1 + off)
    return Keyframe(T_world_camera, depth, np.full(CAMERA.shape, log_std, f32))


def test_alone_a_keyframe_is_believed_as_it_is():
    found = wall(np.eye(4), off=0.1)
    again = agreed(found, CAMERA, [])
    np.testing.assert_array_equal(again.depth, found.depth)
    np.testing.assert_allclose(again.log_std, found.log_std)


def test_what_others_contradict_moves_towards_them_and_is_doubted():
    found = agreed(wall(np.eye(4), off=0.1), CAMERA, [wall(ASIDE), wall(np.linalg.inv(ASIDE))])
    middle, rest = found.depth[25:35, 35:45], found.depth[45:, 20:60]
    assert 2.0 < middle.mean() < 2.2 - 0.09 and found.log_std[25:35, 35:45].min() > 0.04
    np.testing.assert_allclose(rest, 2.0, atol=1e-4)
    assert found.log_std[45:, 20:60].max() < 0.03  # where they agree, all are surer


def test_others_that_agree_count_as_less_than_independent_ones():
    found = agreed(wall(np.eye(4)), CAMERA, [wall(ASIDE), wall(np.linalg.inv(ASIDE))])
    middle = found.log_std[25:35, 35:45]
    assert 0.03 / np.sqrt(2) < middle.min() and middle.max() < 0.03  # at half of its weight each, two are as one


@pytest.mark.parametrize("z", [1.0, 3.0])
def test_another_surface_says_nothing(z):
    found = agreed(wall(np.eye(4)), CAMERA, [wall(ASIDE, z=z)])
    np.testing.assert_array_equal(found.depth, f32(2))
    np.testing.assert_allclose(found.log_std, 0.03, rtol=1e-5)


def test_what_is_surer_of_itself_counts_more():
    means = [agreed(wall(np.eye(4), off=0.1), CAMERA, [wall(ASIDE, log_std=s)]).depth[30, 40] for s in (0.02, 0.06)]
    assert 2.0 < means[0] < means[1] < 2.2


def test_keyframes_that_look_away_say_nothing():
    behind = np.diag([-1.0, 1, -1, 1])
    found = agreed(wall(np.eye(4)), CAMERA, [wall(behind)])
    np.testing.assert_allclose(found.depth, 2.0, atol=1e-4)
