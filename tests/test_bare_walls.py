"""Walls that tell some motions and not others, without noise and with it: what nothing tells is not invented."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from tracked_frames import SIZE, errors, states, tracked

from semslam.frame import Frame
from semslam.tracking.registration.structure import MOSTLY, Products, held_by_structure
from sequences.room.room import RoomSequence
from sequences.room.wall import along_a_wall, bare, striped, with_a_picture


@pytest.mark.parametrize("grey_noise", [1, 8])
@pytest.mark.parametrize("sensor", ["kinect", "tof"])
def test_noise_on_a_bare_wall_is_no_structure(sensor, grey_noise):
    frames = along_a_wall(bare(), 0.0, 30, grey_noise, sensor)
    steps, slam = tracked(frames)
    assert set(states(steps)[1:]) == {"poor", "lost"} and states(steps)[-1] == "lost"
    assert errors(steps, frames).max() < 0.01
    assert "sideways, up or down, in roll" in steps[1].tracking.reason
    assert len(slam.surfels) <= frames[0].depth.size  # those of the first frame


def test_stripes_tell_the_motion_across_them_and_not_along_them():
    frames = along_a_wall(striped(), 0.01, 20, 3, "kinect")
    steps, _ = tracked(frames)
    assert set(states(steps)[1:]) == {"poor"}
    assert all("the motion up or down;" in step.tracking.reason for step in steps[1:])
    assert errors(steps, frames).max() < 0.01


def test_one_picture_on_a_wall_is_enough():
    frames = along_a_wall(with_a_picture(), 0.01, 20, 3, "kinect")
    steps, _ = tracked(frames)
    assert states(steps) == ["good"] * 20
    assert errors(steps, frames).max() < 0.01


def test_structure_is_what_map_and_frame_have_in_common():
    """Jacobians of noise along some axes, of structure along one, and of both along another."""
    rng, count = np.random.default_rng(0), 4000
    structure, noise = np.array([0, 0, 0, 0, 1, 1.0]), np.array([0, 1, 1, 1, 0, 2.0])
    common = rng.normal(size=(count, 6)) * structure
    of_map, of_frame = (common + rng.normal(size=(count, 6)) * noise for _ in range(2))
    of_map[:, 0] = of_frame[:, 0] = 0  # and one that nothing tells: the prior holds it
    both = (of_map.T @ of_frame + of_frame.T @ of_map) / 2
    color = np.stack([both, of_map.T @ of_map, of_frame.T @ of_frame])
    nothing = np.zeros((3, 6, 6))
    held = held_by_structure(Products(nothing, color, np.array([0, count])), (1.0, 1.0), 1.0, np.ones(6), 0.004, MOSTLY)
    assert np.abs(held[1:4, 1:4]).max() < 0.05
    assert held[4, 4] == pytest.approx(1, abs=0.05)
    assert held[5, 5] == pytest.approx(2 / 5, abs=0.1)  # a fifth is structure, and from a half on it counts in full

    exact = np.stack([common.T @ common] * 3)[:, 4:, 4:]
    color = np.zeros((3, 6, 6))
    color[:, 4:, 4:] = exact
    color[:, :4, :4] = count * np.eye(4)
    held = held_by_structure(Products(nothing, color, np.array([0, count])), (1.0, 1.0), 1.0, np.ones(6), 0.004, MOSTLY)
    np.testing.assert_array_equal(held, np.eye(6))


def test_a_bare_wall_is_held_or_given_up_but_never_invented():
    """A camera that glides along a wall without texture: nothing tells how far."""
    camera = RoomSequence(frames=1, **SIZE).camera
    grey = np.full((*camera.shape, 3), 128, np.uint8)
    depth = np.full(camera.shape, 1.5, np.float32)
    frames = [Frame(i, i / 30, grey, camera, depth, T_world_camera=np.eye(4)) for i in range(60)]
    steps, _ = tracked(frames)
    assert errors(steps, frames).max() < 0.01
    assert steps[-1].tracking.state == "lost" and "nothing determines the pose" in steps[-1].tracking.reason


def test_the_faster_the_drive_the_sooner_a_bare_wall_loses_the_camera():
    """Along a wall that is bare beyond its first metres, where the camera stops, and nothing shows it."""
    camera = RoomSequence(frames=1, **SIZE).camera
    rng, depth = np.random.default_rng(0), np.full(camera.shape, 3.0, np.float32)
    texture = cv2.resize(rng.integers(0, 255, (16, 32, 3), np.uint8), (512, camera.height))
    wall = np.full((camera.height, 2000, 3), 128, np.uint8)
    wall[:, : texture.shape[1]] = texture
    for pixels, soon in ((5, 30), (25, 8)):  # of the wall, a frame: 1.7 and 8.6 metres a second
        moving = 525 // pixels
        lefts = np.minimum(np.arange(moving + soon), moving) * pixels
        T = np.tile(np.eye(4), (len(lefts), 1, 1))
        T[:, 0, 3] = lefts * 3.0 / camera.fx
        frames = [
            Frame(k, k / 30, wall[:, left : left + camera.width].copy(), camera, depth, T_world_camera=T[k])
            for k, left in enumerate(lefts)
        ]
        steps, _ = tracked(frames)
        lost = [k for k, step in enumerate(steps) if not step.tracking.ok]
        assert lost == list(range(lost[0], len(frames))) and abs(lost[0] - moving) < soon
        assert "nothing determines the pose" in steps[lost[0]].tracking.reason
        assert errors(steps, frames)[: lost[0]].max() < 1.8
