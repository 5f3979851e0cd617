"""Tracking by colour alone: the room's path, scale by vote, and recordings that show too little."""

from __future__ import annotations

import errno
import threading
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import cv2
import numpy as np
import pytest
from stub_networks import KnowingNetwork

from semslam import poses
from semslam.camera import Camera
from semslam.metrics.trajectory import absolute_error
from semslam.robust import weighted_median
from semslam.runs.color_only import following
from semslam.runs.color_only import poses as color_only_poses
from semslam.runs.color_only.following import depths_by
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.runs.color_only.poses import VisualPoses, track_images
from semslam.tracking.optical_flow import evened
from semslam.tracking.visual import sparse_map, visual_tracker
from semslam.tracking.visual.bundle_adjustment import Adjusted, Scene, adjust
from semslam.tracking.visual.visual_tracker import VisualTracker
from semslam.trajectory import Trajectory
from sequences import open_sequence
from sequences.recalibrated import RecalibratedSequence
from sequences.selected import selected

ROT90 = np.diag([0.0, 0, 1, 1])  # T_portrait_landscape of a camera whose images were turned by np.rot90
ROT90[0, 1], ROT90[1, 0] = 1, -1
ROOM = "room:frames=60,width=320,height=240"


@pytest.fixture(scope="module")
def room():
    return open_sequence(ROOM)


class Changed:
    """A sequence whose frames are others'."""

    ahead = 2

    def __init__(self, sequence, frames) -> None:
        self.name, self.camera, self.poses, self.frames = "changed", sequence.camera, None, frames

    def __len__(self) -> int:
        return len(self.frames)

    def numbers(self, start=0):
        return range(start, len(self))

    @property
    def origin(self):
        return self, np.arange(len(self))

    def number_of(self, index: int) -> int:
        return index

    def color_of(self, index: int):
        return self.frames[index].color

    def recorded_image(self, index: int):
        return None


class BlindNetwork:
    """Knows no frame: everything is two metres away."""

    def __call__(self, image, size, focal, mirror_too=False):
        depth = np.full(size[::-1], 2.0, np.float32)
        return type("Answer", (), {"depth": depth, "depth_confidence": np.ones_like(depth)})


def error(room, found: VisualPoses, with_scale: bool) -> float:
    ok = found.found
    estimate = Trajectory(room.timestamps[ok], found.T_world_camera[ok])
    return absolute_error(estimate, room.trajectory, with_scale=with_scale).rmse


def test_the_path_through_the_room_is_found_in_metres(room):
    found = track_images(room, KnowingNetwork(room))
    assert found.lost == 0 and found.good.all()
    assert error(room, found, with_scale=False) < 0.02
    assert found.scale == pytest.approx(1, abs=0.05)
    np.testing.assert_allclose(found.T_world_camera[0], room.poses[0], atol=1e-9)


def test_keyframes_vote_for_the_scale_and_single_ones_do_not_matter(room):
    """A network whose scale wavers by a third from frame to frame, and is a fifth too large on the whole."""
    network = KnowingNetwork(room, spoil=lambda depth, i: depth * np.float32(1.2 * np.exp(0.3 * np.sin(2.3 * i))))
    found = track_images(room, network)
    assert error(room, found, with_scale=True) < 0.03
    centres, true = found.T_world_camera[:, :3, 3], np.stack(room.poses)[:, :3, 3]
    ratio = np.linalg.norm(centres[-1] - centres[0]) / np.linalg.norm(true[-1] - true[0])
    assert ratio == pytest.approx(1.2, abs=0.2)


def test_the_scale_is_of_the_map_as_it_is_now_and_of_what_the_network_is_sure_of():
    rng, camera = np.random.default_rng(0), Camera(320, 240, 260, 260, 160, 120)
    pixels, depth = rng.uniform(20, 200, (60, 2)), rng.uniform(1, 3, (240, 320)).astype(np.float32)
    u, v = pixels.astype(int).T
    world = sparse_map.SparseMap(camera, pixel_std=1, prior_std=0.3)
    k = world.add_keyframe(0, np.zeros((240, 320), np.uint8), np.eye(4))
    ids = world.add_landmarks(k, pixels, np.log(depth[v, u]))
    doubted = np.arange(60) < 40
    predicted, confidence = depth.copy(), np.ones_like(depth)
    predicted[v[doubted], u[doubted]] *= 3
    confidence[v[doubted], u[doubted]] = 0.1
    world.keyframes[k].votes = world.votes(ids, pixels, predicted, confidence, focal=camera.fx)
    assert world.scale == (1, 1)  # nothing has shown parallax yet
    world.variance[:] = 0.05**2
    assert world.scale[0] == pytest.approx(1, rel=1e-3)
    world.log_depth += np.log(2)
    assert world.scale[0] == pytest.approx(0.5, rel=1e-3)
    world.camera = replace(camera, fx=390, fy=390)  # of which the network would have said more
    assert world.scale[0] == pytest.approx(0.75, rel=1e-3)


def test_the_residual_is_how_far_landmarks_are_seen_from_where_they_should_be():
    rng, camera = np.random.default_rng(0), Camera(320, 240, 260, 250, 160, 120)
    world = sparse_map.SparseMap(camera, pixel_std=1, prior_std=0.3)
    blank = np.zeros((240, 320), np.uint8)
    assert np.isnan(world.residual)
    k = world.add_keyframe(0, blank, np.eye(4))
    ids = world.add_landmarks(k, rng.uniform(60, 180, (40, 2)), rng.uniform(0, 1, 40))
    other = world.add_keyframe(1, blank, poses.exp(np.array([0.1, 0.02, 0.05, 0.02, -0.03, 0.1])))
    where = world.project(ids, world.T_camera_world[other]).pixels
    world.observe(ids, where, other)
    assert world.residual == pytest.approx(0, abs=1e-4)
    world.observe(ids, where + [3, 4], other)
    world.observe(ids, where + [3, 4], other)
    assert world.residual == pytest.approx(5, abs=1e-3)


def test_rows_are_appended_in_the_same_memory_and_are_what_concatenation_gives():
    rng, found, expected, moves = np.random.default_rng(0), np.zeros((0, 2), np.float32), np.zeros((0, 2)), 0
    for k in range(200):
        before, rows = found.base, rng.integers(0, 99, (k % 7, 2)).astype(float)
        found, expected = sparse_map.appended(found, rows), np.concatenate([expected, rows])
        if k % 50 == 49:
            found, expected = found[: len(found) // 2], expected[: len(expected) // 2]
        np.testing.assert_array_equal(found, expected)
        moves += found.base is not before
    assert moves < 25 and found.dtype == np.float32


def test_a_weighted_median_counts_values_as_often_as_they_weigh():
    values, times = np.array([3.0, 1, 2, 7]), np.array([1, 2, 3, 5])
    assert weighted_median(values, times) == np.median(np.repeat(values, times))
    assert weighted_median(values[:1], np.zeros(1)) == 3


def test_in_the_end_keyframes_are_tied_to_what_later_ones_were_the_first_to_show(room):
    tracker = VisualTracker(room.camera, depths_by(KnowingNetwork(room), room.camera))
    for i in range(0, 40, 2):
        tracker(i, room[i].color)
    assert len(tracker.map.keyframes) > 2 and not tracker.map.host[tracker.map.shown_by(0)].any()
    tracker.finish()
    later = tracker.map.shown_by(0)[tracker.map.host[tracker.map.shown_by(0)] > 0]
    assert len(later) > 10
    shown = tracker.map.project(later, tracker.map.T_camera_world[0])
    u, v = np.rint(shown.pixels).astype(int).T
    assert np.median(np.abs(shown.points[:, 2] / room[0].depth[v, u] - 1)) < 0.03


def test_frames_between_keyframes_follow_what_the_map_says_in_the_end(room):
    """A map that is found to be twice as large has all frames, not only its keyframes, twice as far apart."""
    tracker = VisualTracker(room.camera, depths_by(KnowingNetwork(room), room.camera))
    states = {i: tracker(i, room[i].color).state for i in range(12)}
    before = np.stack([tracker.pose(i) for i in range(12)])
    tracker.map.log_depth += np.log(2)
    tracker.map.T_camera_world[:, :3, 3] *= 2
    after = np.stack([tracker.pose(i) for i in range(12)])
    assert set(states.values()) == {"good"} and tracker.pose(12) is None
    np.testing.assert_allclose(after[:, :3, 3], 2 * before[:, :3, 3], atol=2e-4)
    np.testing.assert_allclose(after[:, :3, :3], before[:, :3, :3], atol=2e-4)


def test_a_tracker_that_has_seen_all_images_leaves_no_thread(room):
    tracker, before = VisualTracker(room.camera, depths_by(BlindNetwork(), room.camera)), threading.enumerate()
    following.follow_images(tracker, selected(room, 0, 2), [None, None])
    assert tracker.pose(0) is not None
    assert not [t for t in threading.enumerate() if t.name.startswith("depth") and t not in before]


def test_a_camera_is_found_again_by_one_of_the_old_keyframes_whose_look_is_kept(room, monkeypatch):
    monkeypatch.setattr(visual_tracker, "REMEMBERED", 1)
    monkeypatch.setattr(visual_tracker, "DESCRIBED", 3)
    tracker = VisualTracker(room.camera, depths_by(BlindNetwork(), room.camera))
    for i in range(0, 32, 4):
        tracker(i, room[i].color)
    described = [k for k, keyframe in enumerate(tracker.map.keyframes) if len(keyframe.descriptors)]
    count = len(tracker.map.keyframes)
    assert described == [k for k in range(count) if k % 3 == 0 or k == count - 1] and count > 4
    assert tracker(50, np.zeros_like(room[0].color)).state == "lost"
    assert tracker(51, room[1].color).state != "lost"


def test_an_evened_image_is_the_same_in_any_light_and_faint_noise_stays_faint(room):
    grey = cv2.cvtColor(room[0].color, cv2.COLOR_RGB2GRAY)
    banded = grey * (0.8 + 0.2 * np.sin(np.linspace(0, 12, 240)))[:, None] + np.linspace(0, 20, 320)
    there = [evened(image.astype(np.uint8), 10.0).astype(int) for image in (grey, banded)]
    apart = np.median(np.abs(grey - banded))
    assert apart > 10 and np.median(np.abs(there[0] - there[1])) < 0.3 * apart
    noise = np.random.default_rng(0).normal(100, 2, grey.shape).astype(np.uint8)
    assert evened(noise, 10.0).std() < 2.5 * noise.std() and abs(evened(noise, 10.0).mean() - 128) < 1


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


def test_a_camera_that_comes_back_after_a_dark_while_is_found_again(room):
    frames = [room[i] for i in range(40)]
    dark = [replace(frame, color=np.zeros_like(frame.color)) for frame in frames[:8]]
    found = track_images(Changed(room, frames + dark + [room[i] for i in range(30, 38)]), BlindNetwork())
    assert not found.good[40:48].any()
    assert found.good[48:].all()
    apart = poses.inverse(found.T_world_camera[48]) @ found.T_world_camera[30]
    assert np.linalg.norm(apart[:3, 3]) < 0.02 and poses.rotation_angle(apart) < np.radians(1)


def test_an_unknown_focal_length_is_found_with_the_phone_held_upright(room):
    """Portrait images of a camera whose focal length is a fifth less than the guess."""
    upright = Changed(room, [replace(room[i], color=np.rot90(room[i].color).copy()) for i in range(len(room))])
    upright.camera = replace(Camera.unknown(240, 320), fx=1.25 * room.camera.fx, fy=1.25 * room.camera.fx)
    found = track_images(upright, BlindNetwork())
    assert found.lost == 0
    assert abs(np.log(found.focal / room.camera.fx)) < found.focal_std < 0.05
    turned = replace(found, T_world_camera=found.T_world_camera @ ROT90)
    assert error(room, turned, with_scale=True) < 0.03
    assert found.calibrated(RecalibratedSequence(room, upright.camera)).camera.fx == found.focal
    assert found.calibrated(room) is room


def test_what_comes_after_a_cut_in_the_video_is_lost_and_not_put_into_the_map(room):
    """The mirrored room is another one."""
    frames = [room[i] for i in range(30)]
    other = [replace(frame, color=frame.color[:, ::-1].copy()) for frame in frames[:10]]
    found = track_images(Changed(room, frames + other), BlindNetwork())
    assert found.good[:30].all() and not found.found[30:].any() and found.lost == 10
    estimate = Trajectory(room.timestamps[:30], found.T_world_camera[:30])
    assert absolute_error(estimate, room.trajectory, with_scale=True).rmse < 0.03


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
    said = following.Followed(found.found, found.good, blank, "")
    monkeypatch.setattr(following, "follow_images", lambda *arguments: said)
    frames = Changed(room, [room[0]] * 140)
    followed = following.longest_scene(frames, BlindNetwork(), None, lambda: None, None).followed
    assert "tracked on their own" not in caplog.text
    color_only_poses._check(frames, found, followed)
    assert "frames 60 to 94 are not in the map: their images show nothing" in caplog.text
    assert "frames 95 to 139 are not in the map: they show another scene than frames 0 to 59" in caplog.text
    assert "--start 60" not in caplog.text


def test_an_image_that_the_machine_cannot_read_now_ends_tracking_and_is_not_left_out(room):
    away = OSError(errno.EMFILE, "Too many open files")

    class Away(Changed):
        def color_of(self, index: int):
            if index == 3:
                raise away
            return super().color_of(index)

    with pytest.raises(OSError, match="open files"):
        track_images(Away(room, [room[i] for i in range(5)]), BlindNetwork())


@pytest.mark.parametrize("fade", [1, 6, 60])
def test_a_fade_between_two_scenes_does_not_use_up_the_search_for_the_longest_one(room, monkeypatch, caplog, fade):
    """A tracker that begins in the fade holds that one frame, as each tracker does its first."""
    begins, count, first = 7 + fade, 47 + fade, 1000

    def follow(tracker, sequence, given, report, start):
        scene = (start < 7) * [0, 7] or (start >= begins) * [begins, count] or [start, start + 1]
        there = np.arange(count)
        found = (there >= start) & (there < scene[1])
        return following.Followed(found, found, np.zeros(count, bool), "")

    monkeypatch.setattr(following, "follow_images", follow)
    frames = Changed(room, [room[0]] * count)
    monkeypatch.setattr(Changed, "origin", ("a", np.arange(first, first + count)), raising=False)
    followed = following.longest_scene(frames, BlindNetwork(), None, lambda: None, None).followed
    assert followed.found.sum() >= 30 and not followed.found[:begins].any()
    assert f"to {first + count - 1} may show another scene" in caplog.text


def test_the_mirrored_room_is_no_place_that_was_seen_before_however_short_the_look_was(room):
    """Few landmarks, whose depth is unsure, and textures that repeat themselves fit in places."""
    tracker = VisualTracker(room.camera, depths_by(BlindNetwork(), room.camera))
    assert [tracker(i, room[i].color).state for i in range(6)] == ["good"] * 6
    assert {tracker(i, room[i].color[:, ::-1].copy()).state for i in range(6, 24)} == {"lost"}


@pytest.mark.parametrize(
    ("mask", "start", "length"), [([1, 0, 1, 1, 0, 1], 2, 2), ([0, 0], 0, 0), ([1, 1], 0, 2), ([0, 1, 0, 1], 1, 1)]
)
def test_the_longest_stretch_is_the_first_of_the_longest_ones(mask, start, length):
    assert following.longest_stretch(np.array(mask, bool)) == (start, length)


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


@pytest.mark.slow
def test_what_a_keyframe_costs_does_not_grow_with_how_often_its_place_was_seen(monkeypatch):
    """More than 200 keyframes, forth and back through one room: what is adjusted at each of them stays as much."""
    room, sizes = open_sequence("room:frames=60,width=160,height=120"), []
    tracker = VisualTracker(room.camera, depths_by(KnowingNetwork(room), room.camera))
    once = [room[i].color for i in range(60)]

    def counted(scene: Scene, *settings, **more) -> Adjusted:
        sizes.append((len(tracker.map.keyframes), len(scene.landmark)))
        return adjust(scene, *settings, **more)

    monkeypatch.setattr(sparse_map, "adjust", counted)
    states = []
    for i, color in enumerate(cycle(once + once[-2:0:-1])):
        states.append(tracker(i, color).state)
        if len(tracker.map.keyframes) >= 220:
            break
    keyframes, observations = np.array(sizes).T
    early, late = (keyframes >= 100) & (keyframes < 140), keyframes >= 180
    assert states.count("good") > 0.98 * len(states)
    assert np.median(observations[late]) < 1.1 * np.median(observations[early])
    assert len(tracker.map) < 80 * 220  # landmarks that come back are found again
