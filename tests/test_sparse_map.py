"""The map of tracking by colour alone: its landmarks, scale, keyframes, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest
from filmed_rooms import ROOM
from stub_networks import BlindNetwork, KnowingNetwork

from semslam import poses
from semslam.camera import Camera
from semslam.robust import weighted_median
from semslam.runs.color_only.following import depths_by
from semslam.tracking.visual import sparse_map, visual_tracker
from semslam.tracking.visual.bundle_adjustment import Adjusted, Scene, adjust
from semslam.tracking.visual.visual_tracker import VisualTracker
from semslam.tracking.visual.votes import vote_of, voted_scale
from sequences import open_sequence


@pytest.fixture(scope="module")
def room():
    return open_sequence(ROOM)


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


def test_a_guessed_focal_length_counts_as_one_measurement_beside_all_that_is_wrong_alike():
    rng, blank = np.random.default_rng(0), np.zeros((240, 320), np.uint8)
    world = sparse_map.SparseMap(Camera(320, 240, 260, 260, 160, 120), 1, 0.3, focal_known=False)
    ids = world.add_landmarks(world.add_keyframe(0, blank, np.eye(4)), rng.uniform(60, 180, (900, 2)), np.zeros(900))
    shown = world.add_keyframe(1, blank, np.eye(4))
    for seen, std in ((ids[:20], 0.35), (ids[20:], 0.35 / (0.15 * 30))):
        world.observe(seen, world.project(seen, np.eye(4)).pixels, shown)
        assert world.scene(np.ones(2, bool), with_focal=True)[0].focal_std == pytest.approx(std)
    assert world.scene(np.ones(2, bool), with_focal=False)[0].focal_std == 0


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


@pytest.mark.slow
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


def test_an_image_counts_for_less_whose_landmarks_do_not_agree_on_the_scale():
    sure, rng = np.ones(200), np.random.default_rng(0)
    alike, unlike = (vote_of(middle + rng.normal(0, std, 200), sure) for middle, std in ((0.0, 0.05), (0.5, 0.2)))
    assert alike.level == pytest.approx(0, abs=0.02) and unlike.level == pytest.approx(0.5, abs=0.05)
    assert alike.weight / unlike.weight == pytest.approx(4, rel=0.2)
    scale, _ = voted_scale(*np.array([alike, unlike, unlike, unlike]).T)
    assert np.log(scale) == pytest.approx(-alike.level)
    assert np.isfinite(vote_of(np.zeros(5), np.ones(5)).weight)
