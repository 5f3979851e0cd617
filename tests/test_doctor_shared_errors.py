"""Errors that all poses of a recording share, depth of something else, and gross errors of short recordings."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from spoilt_recordings import Spoilt

from semslam.doctor import intrinsics
from semslam.doctor.depth import motion
from semslam.doctor.matched import Matches
from semslam.doctor.poses import errors, systematic
from semslam.doctor.poses.convention import judged
from semslam.poses import exp
from sequences import open_sequence
from sequences.selected import selected


@pytest.fixture(scope="module")
def matched(sound) -> Matches:
    """The pairs of frames, which poses do not change."""
    found = Matches(Spoilt(*sound))
    assert len(found.pairs) > systematic.FEWEST_PAIRS
    return found


def drifting(i: int, T: np.ndarray) -> np.ndarray:
    T = T.copy()
    T[:3, 3] += np.array([0.8, 0.0, 0.6]) * 0.02 * i / 30
    return T


def longer(_: int, T: np.ndarray) -> np.ndarray:
    T = T.copy()
    T[:3, 3] *= 1.15
    return T


SHARED = {
    r"turned by (9|10)\.": lambda _, T: T @ exp([0, 0, 0, np.radians(-10), 0, 0]),
    "(19|20) cm away": lambda _, T: T @ exp([-0.2, 0, 0, 0, 0, 0]),
    r"drift by [12]\.": drifting,
    r"0\.87 times": longer,
}


@pytest.mark.parametrize("expected", SHARED)
def test_an_error_that_all_poses_share_is_named_and_measured(sound, matched, expected):
    shared = systematic.measured(Spoilt(*sound, poses=SHARED[expected]), matched)
    findings = systematic.findings_of(shared, None, [])
    assert len(findings) == 1, shared
    (finding,) = findings
    assert re.search(expected, finding.what) and finding.level == "warning", finding


@pytest.mark.parametrize("lag", [-3, 2])
def test_poses_of_other_frames_are_told_by_how_many(sound, matched, lag):
    room, frames = sound
    late = Spoilt(room, frames, poses=lambda i, T: room.poses[i + lag] if 0 <= i + lag < len(room) else None)
    shared = systematic.measured(late, matched)
    assert shared.lag == -lag and any("better than their own" in f.what for f in shared.findings())


def test_sound_poses_share_nothing_and_half_a_centimetre_of_noise_is_no_shared_error(sound, matched):
    rng = np.random.default_rng(0)
    for metres, expected in ((0.0, []), (0.005, ["waver from frame to frame, by about 0.5 cm"])):
        noisy = Spoilt(*sound, poses=lambda _, T: T @ exp([*rng.normal(0, metres, 3), 0, 0, 0]))  # noqa: B023
        findings = systematic.findings_of(systematic.measured(noisy, matched), errors.measured(noisy, matched), [])
        assert len(findings) == len(expected) and all(w in f.what for w, f in zip(expected, findings)), findings


@pytest.mark.parametrize(("depth", "told"), [(2.0, True), (9.0, False)])
def test_poses_that_waver_by_millimetres_show_in_a_room_and_not_in_a_hall(depth, told):
    nearest = errors.Distance(0.5, 0.02, 0.02 / depth)
    assert bool(errors.PoseErrors(None, (nearest,), 0.1, wavering=0.004).findings()) == told


def of_frame(depth_of) -> dict[str, object]:
    return {"change": lambda frame: replace(frame, depth=depth_of(frame).astype(np.float32))}


def test_depth_of_another_view_does_not_explain_how_the_images_move(sound):
    room, frames = sound
    assert motion.findings(Matches(Spoilt(*sound)), room.camera) == []
    other = Spoilt(*sound, **of_frame(lambda frame: frames[(frame.index + 45) % 90].depth))
    (finding,) = motion.findings(Matches(other), room.camera)
    assert finding.level == "error" and "does not explain" in finding.what


def test_a_wrong_focal_length_is_not_blamed_on_depth(sound):
    room, frames = sound
    wrong = room.camera.with_focal(0.6 * room.camera.fx)
    other = Spoilt(room, [replace(frame, camera=wrong) for frame in frames])
    other.camera = wrong
    assert motion.findings(Matches(other), wrong) == []


@pytest.mark.slow
def test_a_focal_length_a_quarter_off_is_told_of_three_seconds(sound):
    room, frames = sound
    wrong = room.camera.with_focal(1.25 * room.camera.fx)
    other = Spoilt(room, [replace(frame, camera=wrong) for frame in frames])
    other.camera = wrong
    found = intrinsics.measured(other)
    assert found is not None and abs(1.25 * found.focal.factor - 1) < 0.05
    assert intrinsics.measured(Spoilt(*sound)) is None  # sound: nothing sure is known of so few seconds


def test_an_error_that_a_short_recording_hardly_tells_is_left_alone():
    """A slip in a kitchen's two seconds looks like a lever arm of 35 cm; a planted one leaves far less."""
    short = systematic.SHORT_LIMITS
    for std, left, told in ((0.07, 0.74, False), (0.02, 0.74, False), (0.07, 0.3, False), (0.02, 0.3, True)):
        error = systematic.Error(np.array([0.35, 0, 0]), std, left)
        assert error.is_sure(systematic.NOTABLE["lever"], short, misfit=0.028) == told


@pytest.mark.slow
def test_poses_of_another_camera_are_sound_in_a_dozen_frames_and_shuffled_ones_are_not(shared_data):
    office = selected(open_sequence(shared_data / "realsense_office"), 0, 12)
    assert judged(office).contradiction is None
    poses = tuple(office.poses[i] for i in np.random.default_rng(0).permutation(12))
    assert judged(office, poses).contradiction is not None
