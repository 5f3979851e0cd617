"""Tracking by colour alone where images stop being of one scene: cuts, fades, darkness, and the way back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from filmed_rooms import ROOM, Changed
from stub_networks import BlindNetwork

from semslam import poses
from semslam.metrics.trajectory import absolute_error
from semslam.runs.color_only import following
from semslam.runs.color_only import poses as color_only_poses
from semslam.runs.color_only.following import depths_by
from semslam.runs.color_only.poses import VisualPoses, track_images
from semslam.tracking.visual.visual_tracker import VisualTracker
from semslam.trajectory import Trajectory
from sequences import open_sequence


@pytest.fixture(scope="module")
def room():
    return open_sequence(ROOM)


def test_a_camera_that_comes_back_after_a_dark_while_is_found_again(room):
    frames = [room[i] for i in range(40)]
    dark = [replace(frame, color=np.zeros_like(frame.color)) for frame in frames[:8]]
    found = track_images(Changed(room, frames + dark + [room[i] for i in range(30, 38)]), BlindNetwork())
    assert not found.good[40:48].any()
    assert found.good[48:].all()
    apart = poses.inverse(found.T_world_camera[48]) @ found.T_world_camera[30]
    assert np.linalg.norm(apart[:3, 3]) < 0.02 and poses.rotation_angle(apart) < np.radians(1)


def test_the_mirrored_room_is_no_place_that_was_seen_before_however_short_the_look_was(room):
    """Few landmarks, whose depth is unsure, and textures that repeat themselves fit in places."""
    tracker = VisualTracker(room.camera, depths_by(BlindNetwork(), room.camera))
    assert [tracker(i, room[i].color).state for i in range(6)] == ["good"] * 6
    assert {tracker(i, room[i].color[:, ::-1].copy()).state for i in range(6, 24)} == {"lost"}


def test_what_comes_after_a_cut_in_the_video_is_lost_and_not_put_into_the_map(room):
    """The mirrored room is another one."""
    frames = [room[i] for i in range(30)]
    other = [replace(frame, color=frame.color[:, ::-1].copy()) for frame in frames[:10]]
    found = track_images(Changed(room, frames + other), BlindNetwork())
    assert found.good[:30].all() and not found.found[30:].any() and found.lost == 10
    estimate = Trajectory(room.timestamps[:30], found.T_world_camera[:30])
    assert absolute_error(estimate, room.trajectory, with_scale=True).rmse < 0.03


@pytest.mark.slow
def test_the_longest_scene_of_a_video_is_mapped_and_the_other_one_is_named(room, monkeypatch, caplog):
    monkeypatch.setattr(following, "FEWEST", 8)
    monkeypatch.setattr(color_only_poses, "FEWEST", 8)
    mirrored = [replace(room[i], color=room[i].color[:, ::-1].copy()) for i in range(24)]
    found = track_images(Changed(room, [room[i] for i in range(10)] + mirrored), BlindNetwork())
    assert found.good[10:].all() and not found.found[:10].any()
    mirror = np.diag([-1.0, 1, 1, 1])
    T = mirror @ found.T_world_camera[10:] @ mirror
    estimate = Trajectory(room.timestamps[:24], T)
    assert absolute_error(estimate, room.trajectory, with_scale=True).rmse < 0.03
    assert "frames 0 to 9 are not in the map" in caplog.text and "--start 0 --frames 10" in caplog.text


def test_frames_that_show_nothing_are_named_and_not_offered_for_a_map_of_their_own(room, monkeypatch, caplog):
    """Nor do they make another scene longer than the one that was found."""
    T = np.stack([room[i].T_world_camera for i in range(60)] + [np.full((4, 4), np.nan)] * 80)
    found = VisualPoses(T, np.isfinite(T[:, 0, 0]), 1.0, 0.2, 3, 2.0, 1.0, 100.0, 0.0, 0.0, 0.8)
    blank = (np.arange(140) >= 60) & (np.arange(140) < 95)
    said = following.Followed(found.found, found.good, blank, np.ones(len(blank), bool), "")
    monkeypatch.setattr(following, "follow_images", lambda *arguments: said)
    frames = Changed(room, [room[0]] * 140)
    followed = following.longest_scene(frames, BlindNetwork(), None, lambda: None, None).followed
    assert "tracked on their own" not in caplog.text
    color_only_poses._check(frames, found, followed)
    assert "frames 60 to 94 are not in the map: their images show nothing" in caplog.text
    assert "frames 95 to 139 are not in the map: they show another scene than frames 0 to 59" in caplog.text
    assert "--start 60" not in caplog.text


@pytest.mark.parametrize("fade", [1, 6, 60])
def test_a_fade_between_two_scenes_does_not_use_up_the_search_for_the_longest_one(room, monkeypatch, caplog, fade):
    """A tracker that begins in the fade holds that one frame, as each tracker does its first."""
    begins, count, first = 7 + fade, 47 + fade, 1000

    def follow(tracker, sequence, given, report, start):
        scene = (start < 7) * [0, 7] or (start >= begins) * [begins, count] or [start, start + 1]
        there = np.arange(count)
        found = (there >= start) & (there < scene[1])
        return following.Followed(found, found, np.zeros(count, bool), np.ones(count, bool), "")

    monkeypatch.setattr(following, "follow_images", follow)
    frames = Changed(room, [room[0]] * count)
    monkeypatch.setattr(Changed, "origin", ("a", np.arange(first, first + count)), raising=False)
    followed = following.longest_scene(frames, BlindNetwork(), None, lambda: None, None).followed
    assert followed.found.sum() >= 30 and not followed.found[:begins].any()
    assert f"to {first + count - 1} may show another scene" in caplog.text


@pytest.mark.parametrize(
    ("mask", "start", "length"), [([1, 0, 1, 1, 0, 1], 2, 2), ([0, 0], 0, 0), ([1, 1], 0, 2), ([0, 1, 0, 1], 1, 1)]
)
def test_the_longest_stretch_is_the_first_of_the_longest_ones(mask, start, length):
    assert following.longest_stretch(np.array(mask, bool)) == (start, length)
