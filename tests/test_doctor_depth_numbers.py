"""Depth that is a root or a logarithm, cropped or stuck images, other cameras between: faults that need no poses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from spoilt_recordings import Spoilt

from semslam.camera import Camera
from semslam.doctor import free_motion, stuck
from semslam.doctor.depth import drifting, edges, motion
from semslam.doctor.depth.blended import blended
from semslam.doctor.depth.marks import mark
from semslam.doctor.depth.readings import doubtful_readings, empty
from semslam.doctor.matched import Matches, Shown
from semslam.doctor.order.interleaved import interleaved
from semslam.frame import Frame
from sequences import Sequence
from sequences.room.kinect_noise import kinect_noise
from sequences.room.room import RoomSequence

Recorded = tuple[Sequence, list[Frame]]


@pytest.fixture(scope="module")
def noisy() -> Recorded:
    room = RoomSequence(frames=90, width=320, height=240, noise=kinect_noise)
    return room, list(room)


def of_depth(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Frame], Frame]:
    return lambda frame: replace(frame, depth=change(frame.depth).astype(np.float32))


def bent(recording: Sequence) -> free_motion.Bent:
    return free_motion.measured(recording, Matches(recording))


def with_camera(noisy: Recorded, camera: Camera) -> Spoilt:
    room, frames = noisy
    recording = Spoilt(room, [replace(frame, camera=camera) for frame in frames])
    recording.camera = camera
    return recording


@pytest.mark.parametrize(("change", "said"), [(np.sqrt, "square root"), (np.log1p, "logarithm")])
def test_depth_that_is_a_function_of_the_distance_is_told(noisy, change, said):
    room, _ = noisy
    (finding,) = bent(Spoilt(*noisy, of_depth(change))).findings(room.camera)
    assert finding.level == "error" and "not proportional to distance" in finding.what and said in finding.remedy


def drifts(recording: Sequence) -> list:
    return drifting.findings(Matches(recording), recording.camera)


def test_depth_whose_scale_drifts_is_told_and_no_other_fault_is_taken_for_that(noisy):
    room, frames = noisy
    wave = [replace(f, depth=(f.depth * (1 + 0.04 * np.sin(f.index / 12))).astype(np.float32)) for f in frames]
    (finding,) = drifts(Spoilt(room, wave))
    assert finding.level == "warning" and "the scale of depth changes with time" in finding.what
    assert drifts(Spoilt(*noisy)) == []
    for camera in (room.camera.with_focal(0.8 * room.camera.fx), replace(room.camera, cx=room.camera.cx - 35)):
        assert drifts(with_camera(noisy, camera)) == []


@pytest.mark.slow
def test_a_principal_point_is_told_to_a_few_pixels_and_neither_it_nor_a_focal_length_is_a_root(noisy):
    room, _ = noisy
    camera = room.camera
    found = bent(Spoilt(*noisy))
    assert found.findings(camera) == [] and found.not_judged() == []
    (finding,) = bent(with_camera(noisy, replace(camera, cx=camera.cx - 35))).findings(camera)
    assert finding.level == "warning"
    assert float(finding.what.split("principal point ")[1].split()[0]) == pytest.approx(35, abs=4)
    for factor in (0.8, 1.25):
        wrong = camera.with_focal(factor * camera.fx)
        assert bent(with_camera(noisy, wrong)).findings(wrong) == []


@pytest.mark.parametrize("k1", [-0.25, -0.05])
def test_a_lens_that_nothing_undoes_is_told_where_it_bends_much(noisy, k1):
    room, _ = noisy
    pixels = np.stack(np.meshgrid(np.arange(320), np.arange(240)), -1).reshape(-1, 1, 2).astype(np.float32)
    distortion = np.array([k1, 0, 0, 0])
    straight = cv2.undistortPoints(pixels, room.camera.K, distortion, P=room.camera.K).reshape(240, 320, 2)

    def bending(frame: Frame) -> Frame:
        return replace(frame, color=cv2.remap(frame.color, straight, None, cv2.INTER_LINEAR))

    findings = bent(Spoilt(*noisy, bending)).findings(room.camera)
    if k1 == -0.05:
        assert findings == []
    else:
        (finding,) = findings
        assert finding.level == "warning" and "distortion in camera.yaml" in finding.remedy
        assert float(finding.what.split("k1 about ")[1].split()[0]) == pytest.approx(k1, abs=0.06)


def test_what_too_few_frames_tell_is_not_judged(noisy):
    room, frames = noisy
    few = Spoilt(room, frames)
    few.timestamps, few.poses = few.timestamps[:20], few.poses[:20]
    (line,) = bent(few).not_judged()
    assert "proportional" in line and "principal point" in line


def test_depth_images_that_hold_nothing_are_told_unless_they_are_few():
    full, nothing = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
    (finding,) = empty([full, nothing] * 5)
    assert "5 of 10 depth images" in finding.what
    assert empty([full] * 9 + [nothing]) == []


@pytest.mark.parametrize(("crop", "said"), [((0, 32), "as wide"), ((24, 32), "times as high")])
def test_depth_that_was_cropped_and_stretched_again_is_told(noisy, crop, said):
    room, frames = noisy
    high, wide = crop

    def cropped(depth: np.ndarray) -> np.ndarray:
        inside = np.ascontiguousarray(depth[high : 240 - high, wide : 320 - wide])
        return cv2.resize(inside, (320, 240), interpolation=cv2.INTER_NEAREST)

    (finding,) = edges.seen(Spoilt(room, frames, of_depth(cropped))).findings()
    assert finding.level == "error" and said in finding.what
    width = float(finding.what.split(" times as wide")[0].split()[-1])
    assert width == pytest.approx(0.8, abs=0.025)  # by steps of 4 %


def test_a_film_on_a_screen_does_not_turn_depth(noisy):
    """Its edges are anywhere, and most of depth's fall on it when depth is turned."""
    room, frames = noisy

    def with_screen(frame: Frame) -> Frame:
        color, film = frame.color.copy(), np.random.default_rng(frame.index).integers(0, 255, (12, 16, 3), np.uint8)
        color[10:120, 10:160] = cv2.resize(film, (150, 110), interpolation=cv2.INTER_NEAREST)
        return replace(frame, color=color)

    assert edges.seen(Spoilt(room, frames, with_screen)).findings() == []


def frozen(frames: list[Frame], of: str, part: tuple[slice, slice]) -> Callable[[Frame], Frame]:
    def change(frame: Frame) -> Frame:
        image = getattr(frame, of).copy()
        image[part] = getattr(frames[0], of)[part]
        return replace(frame, **{of: image})

    return change


def dead(frame: Frame) -> Frame:
    color = frame.color.copy()
    color[:, 160:] = 0
    return replace(frame, color=color)


def marked(frame: Frame) -> Frame:
    color = frame.color.copy()
    for k in range(4):
        cv2.putText(color, "WATERMARK", (2, 50 + 60 * k), 0, 1.8, (255, 255, 255), 14)
    return replace(frame, color=color)


def without_return(frame: Frame) -> Frame:
    depth = frame.depth.copy()
    depth[:, 160:] = 4
    return replace(frame, depth=depth)


@pytest.mark.parametrize("value", [0.01, 1.5, 2.0, 10.0])
def test_a_mark_for_missing_depth_is_told_at_pixels_that_change(noisy, value):
    """Also where surfaces are as deep, and where a stray reading is farther."""
    room, _ = noisy
    rng, depths = np.random.default_rng(0), []
    for frame in (room[i] for i in range(0, 60, 12)):
        holes = cv2.resize(rng.normal(0, 1, (15, 20)).astype(np.float32), (320, 240)) > 0.9
        depth = np.where(holes, np.float32(value), frame.depth)
        depth[0, 0] = 12.0
        depths.append(depth)
    found = mark(depths)
    assert found.depth == pytest.approx(value) and found.share == pytest.approx(0.1, abs=0.05)
    assert any("a mark for missing depth" in finding.what for finding in doubtful_readings(depths))


@pytest.mark.parametrize(
    "change",
    [
        lambda depth: cv2.resize(depth, (160, 120), interpolation=cv2.INTER_LINEAR),
        lambda depth: cv2.resize(depth, (640, 480), interpolation=cv2.INTER_CUBIC),
        lambda depth: cv2.GaussianBlur(depth, (0, 0), 0.5),
    ],
)
def test_depth_that_was_resized_or_smoothed_with_its_holes_is_told(noisy, change):
    _, frames = noisy
    (finding,) = blended([of_depth(change)(frame) for frame in frames[::18]])
    assert finding.level == "warning" and "beside" in finding.what and "nearest pixel" in finding.remedy


@pytest.mark.parametrize(("width", "height"), [(320, 240), (160, 120), (200, 150), (640, 480)])
def test_depth_that_was_resized_by_its_nearest_pixels_has_ends_beside_holes(noisy, width, height):
    _, frames = noisy
    nearest = of_depth(lambda depth: cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST))
    assert blended([nearest(frame) for frame in frames[::18]]) == [] and blended([]) == []


def test_a_wall_before_which_things_stand_is_no_mark():
    """Its depth is one number in all frames, as a resting camera without noise sees it."""
    depth = np.full((60, 80), 3.0, np.float32)
    depth[40:] = np.linspace(3, 1.5, 20)[:, None]  # the floor before it
    depth[20:45, 30:40] = 2.0
    assert mark([depth] * 5) is None and mark([np.full((60, 80), 3.0)] * 5) is None


RIGHT, CORNER = np.s_[:, 160:], np.s_[120:, 160:]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frames: frozen(frames, "color", RIGHT), "points"),
        (lambda frames: frozen(frames, "color", CORNER), "points"),
        (lambda frames: frozen(frames, "depth", RIGHT), "pixels have one depth"),
        (lambda _: without_return, "have the depth 4.000 m in all frames: a mark for missing depth"),
        (lambda frames: dead, "pixels have one colour"),
        (lambda frames: marked, "pixels have one colour"),
    ],
)
def test_parts_of_the_image_that_stay_are_told(noisy, change, said):
    room, frames = noisy
    recording = Spoilt(room, frames, change(frames))
    (finding,) = stuck.findings(Matches(recording))
    assert finding.level == "warning" and said in finding.what


def test_a_bare_arm_before_the_camera_is_told_by_its_depth(noisy):
    """It has no corners, and shimmers in colour."""
    room, frames = noisy

    def with_arm(frame: Frame) -> Frame:
        color, depth, light = frame.color.copy(), frame.depth.copy(), frame.index % 60
        cv2.ellipse(color, (240, 190), (95, 70), 20, 0, 360, (150 + light, 90 + light, 60 + light), -1)
        cv2.ellipse(depth, (240, 190), (95, 70), 20, 0, 360, 0.6 + 0.001 * (frame.index % 3), -1)
        return replace(frame, color=color, depth=depth)

    recording = Spoilt(room, frames, with_arm)
    (finding,) = stuck.findings(Matches(recording))
    assert finding.level == "warning" and "keep their depth" in finding.what


@pytest.mark.slow
def test_a_floor_along_which_the_camera_moves_does_not_stay(noisy):
    """Its depth stays in each pixel, as an arm's does."""
    room, _ = noisy
    rng = np.random.default_rng(0)
    floor = cv2.resize(rng.integers(0, 255, (120, 700, 3), np.uint8), None, fx=2, fy=2)
    depth = (2 + 0.004 * rng.standard_normal((90, 240, 320))).astype(np.float32)
    frames = [replace(room[i], color=floor[:, 10 * i : 10 * i + 320].copy(), depth=depth[i]) for i in range(90)]
    assert stuck.findings(Matches(Spoilt(room, frames))) == []


def test_nothing_stays_in_a_sound_recording_nor_in_one_of_a_camera_that_rests(noisy):
    room, frames = noisy
    assert stuck.findings(Matches(Spoilt(*noisy))) == []
    resting = Spoilt(room, [replace(frames[0], index=i) for i in range(90)])
    assert stuck.findings(Matches(resting)) == []


@pytest.mark.parametrize("apart", [15, 45])
def test_two_cameras_in_turn_are_told(noisy, apart):
    """Of views beside each other, and of other places of the room."""
    room, frames = noisy
    assert interleaved(Spoilt(*noisy)) == []
    wide = 320 - 15

    def beside(frame: Frame) -> Frame:
        left = 15 * (frame.index % 2)
        return replace(frame, color=np.ascontiguousarray(frame.color[:, left : left + wide]))

    turns = [frames[i // 2 + 45 * (i % 2)] for i in range(90)]
    recording = Spoilt(room, turns) if apart == 45 else Spoilt(room, frames, beside)
    (finding,) = interleaved(recording)
    assert finding.level == "warning" and "--every 2" in finding.remedy


def test_what_rests_behind_a_hand_that_moves_does_not_count_against_its_depth(noisy):
    camera, rng = noisy[0].camera, np.random.default_rng(0)
    hand, wall = rng.uniform(20, 90, (100, 2)), rng.uniform((0, 0), (319, 239), (80, 2))
    depth = np.concatenate([np.full(100, 0.45), rng.uniform(1, 4, 80)])
    moved = np.concatenate([hand + (40, 0), wall]) + rng.normal(0, 0.5, (180, 2))
    seen = motion._of_two_views(Shown(0, 15, (np.concatenate([hand, wall]), moved), (depth, depth)), camera)
    assert motion._agreement([seen], camera) > 0.95
