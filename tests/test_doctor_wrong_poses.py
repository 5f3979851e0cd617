"""Poses that are wrong one by one, slip, stand still or are of another motion, planted in sound recordings."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from spoilt_recordings import Spoilt, only_error
from variants import one_fast

from semslam.doctor.doctor import diagnose
from semslam.doctor.matched import Matches, Pair
from semslam.doctor.poses import errors
from semslam.doctor.poses.convention import AS_RECORDED, judged
from semslam.doctor.poses.repeated import interpolate_repeated_poses, repeats_of
from semslam.doctor.poses.single import Contradicted, contradicted, findings_of
from semslam.poses import exp, inverse
from sequences import Sequence, open_sequence
from sequences.rebased import with_poses
from sequences.room.room import RoomSequence
from sequences.selected import selected


@pytest.mark.parametrize("index", one_fast(40, 0, 89))
def test_one_wrong_pose_is_found_and_named(sound, index):
    room, frames = sound
    wrong = exp(np.array([0.12, -0.05, 0.1, 0.05, 0.08, -0.04]))
    findings = diagnose(Spoilt(room, frames, poses=lambda i, T: T @ wrong if i == index else T))
    finding = only_error(findings)
    assert f"the poses of frame {index} do not fit the images" in finding.what


def test_poses_do_not_slip_where_the_frame_between_is_rejected(sound):
    room, frames = sound
    turned = exp(np.array([0, 0, 0, 0, np.radians(5), 0]))
    found = contradicted(Spoilt(room, frames, poses=lambda i, T: T @ turned if i == 30 else T))
    assert found == Contradicted(wrong=(30,))


def test_a_jump_of_the_world_is_found_where_it_happens(sound):
    room, frames = sound
    jump = exp(np.array([0.3, 0.1, 0, 0, 0.1, 0]))
    finding = only_error(diagnose(Spoilt(room, frames, poses=lambda i, T: jump @ T if i > 44 else T)))
    assert "the poses jump after frame 44" in finding.what


def test_poses_that_come_back_to_their_world_are_told_from_those_that_do_not(sound):
    """Few frames elsewhere are wrong; with many, no world is the right one."""
    room, frames = sound
    offset = exp(np.array([0.4, 0.1, 0.05, 0, 0.2, 0]))

    def found(moved: range) -> Contradicted:
        return contradicted(Spoilt(room, frames, poses=lambda i, T: offset @ T if i in moved else T))

    assert found(range(30, 33)) == Contradicted(wrong=(30, 31, 32))
    assert found(range(30, 38)) == Contradicted(wrong=tuple(range(30, 38)))
    assert found(range(83, 90)) == Contradicted(wrong=tuple(range(83, 90)))
    assert found(range(30, 60)) == Contradicted(jumps=(29, 59))


def test_poses_that_stay_while_the_images_move_are_wrong(sound):
    room, frames = sound
    stuck = Spoilt(room, frames, poses=lambda i, T: room.poses[30] if 30 < i < 50 else T)
    assert contradicted(stuck) == Contradicted(wrong=tuple(range(31, 50)))
    still = Spoilt(
        room, [frames[30] if 30 < i < 50 else f for i, f in enumerate(frames)], poses=lambda i, _: stuck.poses[i]
    )
    assert set(contradicted(still).wrong) <= {50}  # the images may jump there, when the poses do


def test_poses_less_frequent_than_images_are_not_stuck(sound):
    room, frames = sound
    held = Spoilt(room, frames, poses=lambda i, T: room.poses[i // 4 * 4])
    assert not contradicted(held).wrong and not contradicted(held).jumps


def of_moving_camera(recording: Sequence) -> Sequence:
    return interpolate_repeated_poses(recording, repeats_of(recording))


def test_repeated_poses_are_interpolated_where_the_camera_moves(sound):
    room, frames = sound
    repeated = Spoilt(room, frames, poses=lambda i, T: room.poses[i // 4 * 4])
    moving = of_moving_camera(repeated)
    for i in (0, 2, 40, 43):
        assert np.linalg.norm(moving.poses[i][:3, 3] - room.poses[i][:3, 3]) < 2e-3
    np.testing.assert_array_equal(moving.poses[89], room.poses[88])  # no new pose comes after frame 88
    part = of_moving_camera(selected(repeated, 3, every=3))  # whose frames are seldom those at which poses were new
    for i in (3, 30, 42):
        assert np.linalg.norm(part.poses[i // 3 - 1][:3, 3] - room.poses[i][:3, 3]) < 5e-3
    at_stops = [frames[i // 4 * 4] for i in range(len(frames))]  # a camera that stands still as its poses do
    still = Spoilt(room, at_stops, poses=lambda i, _: repeated.poses[i])
    assert of_moving_camera(still) is still
    assert repeats_of(Spoilt(room, frames)) is None


def test_a_camera_that_rests_keeps_its_poses_where_others_are_interpolated(sound):
    room, frames = sound
    resting = [frames[max(i - 30, 0)] for i in range(90)]  # for a second, of which the poses of the others know nothing
    rest = Spoilt(room, resting, poses=lambda i, T: room.poses[max(i - 30, 0) // 3 * 3])
    moving = of_moving_camera(rest)
    assert moving is not rest and all(T is not None for T in moving.poses)
    for i in range(30):
        np.testing.assert_array_equal(moving.poses[i], room.poses[0])
    assert np.linalg.norm(moving.poses[70][:3, 3] - room.poses[40][:3, 3]) < 2e-3
    assert not contradicted(moving).wrong


def test_dark_images_do_not_hide_a_wrong_pose(sound):
    room, frames = sound
    dark = [replace(f, color=np.zeros_like(f.color)) if i >= 60 else f for i, f in enumerate(frames)]
    aside, off = exp(np.array([0.6, 0, 0, 0, 0, 0])), exp(np.array([0.3, 0, 0, 0, 0, 0]))
    poses = [T @ (aside if i >= 60 and i % 2 else off if i == 20 else np.eye(4)) for i, T in enumerate(room.poses)]
    assert contradicted(Spoilt(room, dark, poses=lambda i, _: poses[i])).wrong == (20,)


def test_what_leaves_no_map_is_told_first_and_of_most_poses_no_others_are_called_right():
    told = [finding.what for finding in findings_of(Contradicted(wrong=(3,), jumps=(7,)), 20, int)]
    assert "jump after frame 7" in told[0] and "while those around do" in told[1]
    (most,) = findings_of(Contradicted(wrong=tuple(range(11))), 20, int)
    assert "11 frames" in most.what and "of 20 in all" in most.what and "around" not in most.what


def test_noise_of_poses_is_no_contradiction(sound):
    room, frames = sound
    rng = np.random.default_rng(0)
    noise = [exp(np.concatenate([rng.normal(0, 0.012, 3), rng.normal(0, np.radians(0.6), 3)])) for _ in frames]
    noisy = Spoilt(room, frames, poses=lambda i, T: T @ noise[i])
    assert contradicted(noisy) == Contradicted() and not judged(noisy).decisive


@pytest.mark.parametrize(
    "motion", [pytest.param(m, marks=pytest.mark.slow) for m in ("none", "backwards", "without-rotation")]
)
def test_poses_of_another_motion_leave_no_doubt(sound, motion):
    room, frames = sound
    other = {
        "none": lambda i, T: np.eye(4),
        "backwards": lambda i, T: room.poses[len(frames) - 1 - i],
        "without-rotation": lambda i, T: np.block([[np.eye(3), T[:3, 3:]], [T[3:]]]),
    }[motion]
    found = judged(Spoilt(room, frames, poses=other))
    assert found.decisive and found.contradiction is not None and "nor by any other reading" in found.contradiction.what


@pytest.mark.slow
def test_poses_that_only_turn_are_told_where_the_camera_moves(sound):
    room, frames = sound
    turning = Spoilt(room, frames, poses=lambda i, T: np.block([[T[:3, :3], np.ones((3, 1))], [T[3:]]]))
    found = judged(turning)
    assert found.decisive and found.contradiction is not None and "all at one place" in found.contradiction.what
    assert found.contradiction in diagnose(turning)


def test_poses_of_another_motion_are_told_where_nothing_else_tells_them():
    later = (errors.Distance(0.5, 0.1, 0.06), errors.Distance(1.0, 0.3, 0.15))
    (finding,) = errors.PoseErrors(None, later, of_motion=0.9).findings()
    assert "off by 90 %" in finding.what and "--poses tracked" in finding.remedy


@pytest.mark.slow
def test_a_run_is_told_of_the_poses_of_another_recording_as_doctor_tells(shared_data, kitchen):
    recording, frames = kitchen
    office = open_sequence(shared_data / "realsense_office").poses
    swapped = selected(Spoilt(recording, frames, poses=lambda i, _: office[i]), 0, 70)
    found = judged(swapped)
    assert found.decisive and found.contradiction in diagnose(swapped)


def test_a_slip_of_poses_is_told_with_its_place_and_size_and_neither_noise_nor_drift_is_one():
    room = RoomSequence(frames=60)
    pixels, depth = np.random.default_rng(0).uniform(0, room.camera.height, (30, 2)), np.full(30, 1.7)
    ends = [(first, first + gap) for first in range(0, 50, 5) for gap in (6, 15, 30) if first + gap < 60]
    motion = {(a, b): inverse(room.poses[b]) @ room.poses[a] for a, b in ends}
    pairs = [Pair(a, b, (pixels, pixels), (depth, depth), motion[a, b]) for a, b in ends]
    matched = SimpleNamespace(pairs=pairs, short=6, gaps=[15, 30])

    def measured(T_world_camera: list[np.ndarray]) -> errors.PoseErrors:
        return errors.measured(with_poses(room, T_world_camera), matched)

    aside = exp(np.array([0.08, 0, 0, 0, 0, 0]))
    slipped = measured([aside @ T if i >= 33 else T for i, T in enumerate(room.poses)])
    assert slipped.slip.after < 33 <= slipped.slip.before and slipped.slip.metres == pytest.approx(0.08)
    assert f"slip by 8 cm between frames {slipped.slip.after} and" in slipped.findings()[0].what
    rng = np.random.default_rng(1)
    off = np.repeat([0.02, np.radians(1)], 3)
    noisy = measured([T @ exp(rng.normal(0, off)) for T in room.poses])
    drifting = measured([exp(np.array([0.003 * i, 0, 0, 0, 0, 0])) @ T for i, T in enumerate(room.poses)])
    assert noisy.slip is drifting.slip is measured(list(room.poses)).slip is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["redkitchen", "icl_livingroom1", "realsense_office"])
def test_noise_and_drift_of_poses_are_told_apart_and_end_no_run(shared_data, name):
    """Noise of 0.8 to 3 cm and 0.4 to 1.5 degrees per axis; 15 cm in 70 frames, which is no more than a slow walk."""
    recording = open_sequence(shared_data / name)
    matched = Matches(recording)

    def said(T_world_camera: list[np.ndarray]) -> str:
        found = judged(recording, T_world_camera, matched)
        assert found.convention == AS_RECORDED and not found.decisive
        off = errors.measured(with_poses(recording, T_world_camera), matched)
        return " ".join(finding.what for finding in off.findings())

    assert said(list(recording.poses)) == ""
    if name != "redkitchen":  # whose own poses are off by nearly as much
        aside = exp(np.array([0.08, 0, 0, 0, 0, 0]))
        middle = len(recording) // 2
        assert "slip by 8 cm" in said([aside @ T if i >= middle else T for i, T in enumerate(recording.poses)])
    rng = np.random.default_rng(0)
    for metres, degrees in ((0.008, 0.4), (0.02, 1.0), (0.03, 1.5)):
        std = np.repeat([metres, np.radians(degrees)], 3)
        assert "are noisy" in said([T @ exp(rng.normal(0, std)) for T in recording.poses])
    aside = exp(np.array([0.15 / 70, 0, 0, 0, 0, 0]))
    assert "drift" in said([np.linalg.matrix_power(aside, i) @ T for i, T in enumerate(recording.poses)])
