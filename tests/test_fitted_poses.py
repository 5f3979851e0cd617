"""Given poses that contradict the images are corrected; those that agree are kept to the last bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from stub_networks import KnowingNetwork

from semslam import poses
from semslam.camera import Camera
from semslam.metrics.trajectory import absolute_error
from semslam.runs.color_only import fitted
from semslam.runs.color_only.clocks import at_other_times
from semslam.runs.color_only.fitted import FittedPoses, _hold_firmly, fit_to_images
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.sparse_map import SparseMap
from semslam.trajectory import Trajectory
from sequences import open_sequence
from sequences.recalibrated import StraightenedSequence, numbers_of
from sequences.selected import SelectedSequence

CENTIMETRES, DEGREES = 0.03, 1.2  # of the waves that recorded poses are given


@pytest.fixture(scope="module")
def room():
    return open_sequence("room:frames=40,width=320,height=240")


@pytest.fixture(scope="module")
def shrinking(room):
    """A network that takes everything for a third too near."""
    return KnowingNetwork(room, spoil=lambda depth, index: depth * np.float32(0.67))


def wavering(T: np.ndarray, i: int) -> np.ndarray:
    """A pose with an error that changes slowly, as those of recordings do."""
    phases = 0.25 * i + np.arange(6)
    return T @ poses.exp(np.sin(phases) * np.repeat([CENTIMETRES, np.radians(DEGREES)], 3) / np.sqrt(3))


def relative_errors(room, T, step: int = 8) -> np.ndarray:
    """Metres: of the ways from a frame to another one, in the camera's own frame."""
    pairs = [(i, i + step) for i in range(0, len(room) - step, 4)]
    ways = [poses.inverse(poses.inverse(T[i]) @ T[j]) @ poses.inverse(room.poses[i]) @ room.poses[j] for i, j in pairs]
    return np.array([np.linalg.norm(way[:3, 3]) for way in ways])


def test_poses_that_waver_are_corrected_and_keep_their_world_and_their_metre(room, shrinking):
    given = [wavering(T, i) for i, T in enumerate(room.poses)]
    found = fit_to_images(room, given, shrinking, VisualConfig())
    assert found.corrected and found.misfit < 1 < found.misfit_given and found.seconds > 0
    assert np.median(relative_errors(room, found.T_world_camera)) < 0.4 * np.median(relative_errors(room, given))
    estimate = Trajectory(room.timestamps, found.T_world_camera)
    similar = absolute_error(estimate, room.trajectory, with_scale=True)
    assert similar.alignment.scale == pytest.approx(1, abs=0.1)  # not the network's 1.5; 1.04 to 1.06 by the processor
    assert np.linalg.norm(found.T_world_camera[:, :3, 3] - np.stack(room.poses)[:, :3, 3], axis=1).max() < 0.06


def test_exact_poses_are_kept_to_the_last_bit_and_gaps_stay_gaps(room, shrinking):
    given = [None if i in (7, 8, 30) else T for i, T in enumerate(room.poses)]
    found = fit_to_images(room, given, shrinking, VisualConfig())
    assert not found.corrected and found.calibrated(room) is room and not found.figures()["poses_corrected"]
    for kept, T in zip(found.listed(), given):
        assert (kept is None) == (T is None)
        assert T is None or np.array_equal(kept, T)


def test_frames_before_the_first_given_pose_begin_no_world_of_their_own(room, shrinking):
    T_given_room = poses.exp(np.array([3.0, -2.0, 1.0, 0.3, 0.8, -0.2]))
    given = [None if i < 15 else T_given_room @ wavering(T, i) for i, T in enumerate(room.poses)]
    found = fit_to_images(room, given, shrinking, VisualConfig())
    assert found.corrected and not any(T is not None for T in found.listed()[:15])
    steps = [poses.inverse(T_given_room @ T) @ there for T, there in zip(room.poses[15:], found.T_world_camera[15:])]
    assert max(np.linalg.norm(step[:3, 3]) for step in steps) < 0.06
    assert max(poses.rotation_angle(step) for step in steps) < np.radians(3)


def test_a_lens_that_landmarks_tell_of_is_undone_in_images_and_poses(room, shrinking, monkeypatch):
    lens = replace(room.camera, distortion=(0.02, -0.01, 0.0, 0.0))
    monkeypatch.setattr(fitted, "straightened", lambda as_said, known: as_said.without(lens))
    given = [wavering(T, i) for i, T in enumerate(room.poses)]
    found = fit_to_images(room, given, shrinking, VisualConfig())
    straight = found.calibrated(room)
    assert isinstance(straight, StraightenedSequence) and straight.lens == lens
    assert found.corrected and found.figures()["lens"] == pytest.approx(numbers_of(lens).tolist())
    assert np.median(relative_errors(room, found.T_world_camera)) < 0.5 * np.median(relative_errors(room, given))


@pytest.mark.slow
def test_poses_that_are_held_too_firmly_for_a_trial_cost_no_observation():
    """Two keyframes that one sees apart and the given poses say are together: holding them makes all look wrong."""
    camera, rng = Camera(320, 240, 260, 260, 160, 120), np.random.default_rng(0)
    world = SparseMap(camera, pixel_std=0.8, prior_std=0.3, given_std=(0.5, 0.1))
    shifts = [poses.from_rotation_translation(np.eye(3), np.array([-0.3 * k, 0, 0])) for k in range(3)]
    for k, T in enumerate(shifts):
        world.add_keyframe(k, np.zeros((240, 320), np.uint8), T, given=np.eye(4))
    ids = world.add_landmarks(0, rng.uniform([120, 20], [300, 220], (60, 2)), np.log(rng.uniform(1.5, 3, 60)))
    for k in (1, 2):
        world.observe(ids, world.project(ids, shifts[k]).pixels, k)
    before = {name: array.copy() for name, array in world.snapshot().items()}
    _hold_firmly(world, most=0.0)
    after = world.snapshot()
    assert len(after["_landmark"]) == len(before["_landmark"]) == 120 and not after["strikes"].any()
    assert world.given_std == (0.5, 0.1)


def test_what_was_found_is_kept_for_a_run_that_goes_on(tmp_path):
    found = FittedPoses(np.tile(np.eye(4), (3, 1, 1)), 2.5, 0.7, 0.01, 0.02, True, 0.02, 3.0, np.arange(6.0)[None])
    save_kept(tmp_path / "fitted.npz", found, "settings")
    again = load_kept(tmp_path / "fitted.npz", FittedPoses, 3)
    assert again is not None and again.figures() == found.figures()
    assert load_kept(tmp_path / "fitted.npz", FittedPoses, 4) is None
    with np.load(tmp_path / "fitted.npz") as arrays:
        np.savez(tmp_path / "earlier.npz", **{name: arrays[name] for name in arrays if name != "time_offset"})
    assert load_kept(tmp_path / "earlier.npz", FittedPoses, 3) is None
    assert load_kept(tmp_path / "fitted.npz", FittedPoses, 3, "others") is None
    (tmp_path / "fitted.npz").write_bytes(b"half a file")
    assert load_kept(tmp_path / "fitted.npz", FittedPoses, 3) is None


@pytest.mark.slow
def test_poses_of_a_clock_that_is_late_are_taken_at_the_times_that_fit():
    """Of a camera that hurries and halts."""
    steps = np.rint(3 + 2.9 * np.sin(np.arange(44) * 1.3)).astype(int)
    room = SelectedSequence(open_sequence("room:frames=140,width=320,height=240"), np.cumsum(steps))
    room.timestamps = np.arange(len(room)) / 30.0
    late = at_other_times(room.poses, room.timestamps, -0.025)
    found = fit_to_images(room, late, KnowingNetwork(room), VisualConfig())
    assert found.corrected and found.time_offset == pytest.approx(0.025, abs=0.004)
    assert found.misfit < found.misfit_given - 1
    there = [i for i, T in enumerate(found.listed()) if T is not None and late[i] is not None]
    assert len(there) >= len(room) - 2
    off, given = (np.stack([T[i] for i in there])[:, :3, 3] for T in (found.T_world_camera, late))
    true = np.stack(room.poses)[there, :3, 3]
    assert np.linalg.norm(off - true, axis=1).mean() < 0.3 * np.linalg.norm(given - true, axis=1).mean()


def test_poses_too_far_apart_in_time_are_not_taken_at_other_times(room, shrinking):
    """Between frames of one a second nothing is interpolated: that there is no pose must not look like a better one."""
    slow = SelectedSequence(room, np.arange(0, len(room), 2))
    slow.timestamps = np.arange(len(slow), dtype=float)
    given = [wavering(T, 2 * i) for i, T in enumerate(slow.poses)]
    found = fit_to_images(slow, given, shrinking, VisualConfig())
    assert found.corrected and found.time_offset == 0
    assert np.isfinite(found.T_world_camera[:, 0, 0]).all()


def test_poses_at_other_times_lie_between_those_of_frames_and_end_where_these_end():
    T = [poses.exp(np.array([0.3 * i, 0, 0, 0, 0.1 * i, 0])) for i in range(4)]
    given = [*T, None, *T]
    times = np.array([0.0, 1, 2, 3, 4, 10, 10.2, 10.4, 10.6])
    moved = at_other_times(given, times * 0.1, 0.05)
    np.testing.assert_allclose(moved[1], poses.exp(np.array([0.45, 0, 0, 0, 0.15, 0])), atol=1e-12)
    assert moved[4] is None and at_other_times(given, times, 0.0)[2] is T[2]
    assert at_other_times(given, times, 2.5)[3] is None  # nothing is known of the seconds until 10
