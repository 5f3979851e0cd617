"""Tracking by colour alone: the room's path, scale by vote, and recordings that show too little."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from filmed_rooms import ROOM, Changed, error
from stub_networks import BlindNetwork, KnowingNetwork

from semslam import poses
from semslam.camera import Camera
from semslam.metrics.trajectory import absolute_error
from semslam.runs.color_only import following
from semslam.runs.color_only.following import depths_by
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.runs.color_only.poses import VisualPoses, track_images
from semslam.tracking.optical_flow import evened
from semslam.tracking.visual.visual_tracker import VisualTracker
from semslam.trajectory import Trajectory
from sequences import open_sequence
from sequences.recalibrated import RecalibratedSequence
from sequences.selected import selected


@pytest.fixture(scope="module")
def room():
    return open_sequence(ROOM)


ROT90 = np.array([[0.0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])  # T_portrait_landscape of np.rot90's


def test_the_path_through_the_room_is_found_in_metres(room):
    found = track_images(room, KnowingNetwork(room))
    assert found.lost == 0 and found.good.all()
    assert error(room, found, with_scale=False) < 0.02
    assert found.scale == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(found.T_world_camera[0], room.poses[0], atol=1e-9)


@pytest.mark.slow
def test_keyframes_vote_for_the_scale_and_single_ones_do_not_matter(room):
    """A network whose scale wavers by a third from frame to frame, and is a fifth too large on the whole."""
    network = KnowingNetwork(room, spoil=lambda depth, i: depth * np.float32(1.2 * np.exp(0.3 * np.sin(2.3 * i))))
    found = track_images(room, network)
    assert error(room, found, with_scale=True) < 0.03
    centres, true = found.T_world_camera[:, :3, 3], np.stack(room.poses)[:, :3, 3]
    ratio = np.linalg.norm(centres[-1] - centres[0]) / np.linalg.norm(true[-1] - true[0])
    assert ratio == pytest.approx(1.2, abs=0.2)


def test_a_tracker_that_has_seen_all_images_leaves_no_thread(room):
    before = threading.enumerate()

    def predicting() -> list[threading.Thread]:
        return [t for t in threading.enumerate() if t.name.startswith("depth") and t not in before]

    seeing, through = (VisualTracker(room.camera, depths_by(BlindNetwork(), room.camera)) for _ in range(2))
    seeing(0, room[0].color)
    assert len(predicting()) == 1
    seeing.close()
    following.follow_images(through, selected(room, 0, 2), [None, None])
    assert through.pose(0) is not None and not predicting()


def test_an_evened_image_is_the_same_in_any_light_and_faint_noise_stays_faint(room):
    grey = cv2.cvtColor(room[0].color, cv2.COLOR_RGB2GRAY)
    banded = grey * (0.8 + 0.2 * np.sin(np.linspace(0, 12, 240)))[:, None] + np.linspace(0, 20, 320)
    there = [evened(image.astype(np.uint8), 10.0).astype(int) for image in (grey, banded)]
    apart = np.median(np.abs(grey - banded))
    assert apart > 10 and np.median(np.abs(there[0] - there[1])) < 0.3 * apart
    noise = np.random.default_rng(0).normal(100, 2, grey.shape).astype(np.uint8)
    assert evened(noise, 10.0).std() < 2.5 * noise.std() and abs(evened(noise, 10.0).mean() - 128) < 1


@pytest.mark.slow
def test_exposure_is_no_motion(room):
    rng = np.random.default_rng(0)
    frames = []
    for i in range(len(room)):
        frame = room[i]
        gain = np.float32(0.7 if (i // 10) % 2 else 1.0)
        frames.append(replace(frame, color=(frame.color * gain + rng.uniform(0, 10)).clip(0, 255).astype(np.uint8)))
    found = track_images(Changed(room, frames), BlindNetwork())
    assert found.lost == 0
    assert error(room, found, with_scale=True) < 0.04


def test_keyframes_that_flicker_forces_are_counted_and_motion_forces_none(room):
    rng, forced = np.random.default_rng(0), []
    for spoilt in (False, True):
        tracker = VisualTracker(room.camera, depths_by(BlindNetwork(), room.camera))
        for i in range(6):
            color = room[i].color.copy()
            if spoilt:  # the lower half shows something else in each image
                color[120:] = rng.integers(0, 256, (120, *color.shape[1:]), np.uint8)
            tracker(i, color)
        forced.append(tracker.forced)
    assert forced[0] == 0 and forced[1] >= 3


def test_the_motion_across_frames_that_were_lost_is_told_for_one_frame(room):
    tracker = VisualTracker(room.camera, depths_by(KnowingNetwork(room), room.camera))
    for i in range(4):
        tracker(i, room[i].color)
    black = np.zeros_like(room[4].color)
    assert {tracker(i, black).state for i in (4, 5)} == {"lost"}
    before = tracker._T
    assert tracker(6, room[6].color).state != "lost"
    motion = poses.log(tracker._T @ poses.inverse(before))
    assert np.linalg.norm(3 * tracker._velocity - motion) < 0.4 * np.linalg.norm(motion)  # the map was adjusted, too


@pytest.mark.slow
def test_an_unknown_focal_length_is_found_with_the_phone_held_upright(room):
    """Portrait images of a camera whose focal length is a fifth less than the guess."""
    upright = Changed(room, [replace(room[i], color=np.rot90(room[i].color).copy()) for i in range(len(room))])
    upright.camera = replace(Camera.unknown(240, 320), fx=1.25 * room.camera.fx, fy=1.25 * room.camera.fx)
    found = track_images(upright, BlindNetwork())
    assert found.lost == 0
    assert abs(np.log(found.focal / room.camera.fx)) < found.focal_std < 0.06
    turned = replace(found, T_world_camera=found.T_world_camera @ ROT90)
    assert error(room, turned, with_scale=True) < 0.03
    assert found.calibrated(RecalibratedSequence(room, upright.camera)).camera.fx == found.focal
    assert found.calibrated(room) is room


def test_an_image_that_the_machine_cannot_read_now_ends_tracking_and_is_not_left_out(room):
    away = OSError(errno.EMFILE, "Too many open files")

    class Away(Changed):
        def color_of(self, index: int):
            if index == 3:
                raise away
            return super().color_of(index)

    with pytest.raises(OSError, match="open files"):
        track_images(Away(room, [room[i] for i in range(5)]), BlindNetwork())


@pytest.mark.slow
def test_motion_blur_is_told_or_survived_but_never_a_false_pose(room):
    frames = [room[i] for i in range(40)]
    smeared = [replace(f, color=cv2.blur(f.color, (61, 1))) if 18 <= f.index < 24 else f for f in frames]
    found = track_images(Changed(room, smeared), BlindNetwork())
    assert found.good[24:].all()
    sure = np.flatnonzero(found.good)
    estimate = Trajectory(room.timestamps[sure], found.T_world_camera[sure])
    errors = absolute_error(estimate, room.trajectory, with_scale=True)
    assert errors.rmse < 0.03 and errors.maximum < 0.1


@pytest.mark.parametrize(
    ("frames", "what"),
    [
        (lambda room: [room[5]] * 30, "shows no parallax"),
        (lambda room: [replace(room[i], color=np.full_like(room[0].color, 90)) for i in range(30)], "texture in view"),
        (
            lambda room: [
                replace(room[0], color=np.random.default_rng(i).integers(0, 255, room[0].color.shape, np.uint8))
                for i in range(30)
            ],
            "could not be tracked",
        ),
    ],
)
def test_recordings_without_parallax_or_texture_end_with_a_line_that_says_so(room, frames, what):
    with pytest.raises(ValueError, match=what):
        track_images(Changed(room, frames(room)), BlindNetwork())


def test_what_was_tracked_is_kept_and_only_for_the_same_recording(tmp_path: Path):
    found = VisualPoses(
        np.tile(np.eye(4), (3, 1, 1)), np.array([True, True, False]), 0.9, 0.05, 2, 2.5, 1.0, 500.0, 0.0, 0.5, np.nan
    )
    save_kept(tmp_path / "visual.npz", found, "settings")
    again = load_kept(tmp_path / "visual.npz", VisualPoses, 3)
    assert again is not None and again.scale == 0.9 and np.array_equal(again.good, found.good)
    assert load_kept(tmp_path / "visual.npz", VisualPoses, 4) is None
    assert load_kept(tmp_path / "visual.npz", VisualPoses, 3, "settings") is not None
    assert load_kept(tmp_path / "visual.npz", VisualPoses, 3, "others") is None
    (tmp_path / "visual.npz").write_bytes(b"half a file")
    assert load_kept(tmp_path / "visual.npz", VisualPoses, 3) is None
