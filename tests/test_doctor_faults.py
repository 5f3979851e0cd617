"""Faults that show only where frames are held against each other, planted one by one in recordings that are sound."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from spoilt_recordings import Spoilt, only_error
from variants import one_fast

from semslam.doctor import intrinsics
from semslam.doctor.depth import edges
from semslam.doctor.depth.readings import implausible_depth
from semslam.doctor.doctor import diagnose, diagnosis
from semslam.doctor.guesses import stretched
from semslam.doctor.matched import Pair
from semslam.doctor.poses.convention import AS_RECORDED, Judged, _misread, as_convention, judged
from semslam.frame import Frame
from semslam.poses import exp, inverse
from sequences import Sequence, open_sequence
from sequences.recalibrated import RecalibratedSequence
from sequences.room.room import RoomSequence
from sequences.selected import selected


def test_nothing_is_found_where_nothing_is_planted(sound):
    found = diagnosis(Spoilt(*sound))
    assert found.findings == []
    assert found.not_judged == ("the focal length and the unit of depth (it lasts 3.0 s; 6 s are needed)",)


def to_ray(frame: Frame) -> Frame:
    ray = np.linalg.norm(frame.camera.backproject(np.ones(frame.camera.shape)), axis=2)
    return replace(frame, depth=(frame.depth * ray).astype(np.float32))


def test_depth_along_the_ray_is_told_from_z(sound):
    finding = only_error(diagnose(Spoilt(*sound, to_ray)))
    assert "along each pixel's ray" in finding.what and "depth_along_ray" in finding.remedy


@pytest.mark.slow
def test_every_convention_is_told_from_the_images(sound):
    recording = Spoilt(*sound)
    sure = Judged(AS_RECORDED)
    assert judged(recording) == sure
    assert judged(recording, [*recording.poses[:20], *[None] * 70]) == sure._replace(told=False)
    gl = np.diag([1.0, -1.0, -1.0, 1.0])
    assert judged(recording, [inverse(T) for T in recording.poses]) == Judged("inverted")
    assert judged(recording, [inverse(T @ gl) for T in recording.poses]) == Judged("inverted,opengl")
    far = [T + np.array([[0, 0, 0, 5e6], *np.zeros((3, 4))]) for T in recording.poses]
    assert judged(recording, [inverse(T) for T in far]) == Judged("inverted")
    assert diagnose(recording) == []  # whose own poses are as they were


def test_a_convention_is_undone_by_writing_it():
    T = exp(np.array([0.3, -1.2, 0.5, 0.4, 0.2, -0.7]))
    for convention, written in (("inverted", inverse(T)), ("opengl", T @ np.diag([1.0, -1.0, -1.0, 1.0]))):
        np.testing.assert_allclose(as_convention([written, None], convention)[0], T, atol=1e-12)
    assert as_convention([T, None], AS_RECORDED)[1] is None


@pytest.mark.slow
@pytest.mark.parametrize(("convention", "frames"), [("opengl", 70), ("centimetres", 70), ("centimetres", None)])
def test_conventions_are_told_from_poses_that_are_only_good_to_some_pixels(shared_data, convention, frames):
    """The office's poses are two frames late; a short stay in it tells centimetres, too, and that they fit badly."""
    start = 220 if convention == "centimetres" and frames else 0
    office = selected(open_sequence(shared_data / "realsense_office"), start, frames)
    change = {"opengl": lambda T: T @ np.diag([1.0, -1.0, -1.0, 1.0]), "centimetres": stretched(100.0)}[convention]
    found = judged(office, [change(T) for T in office.poses])
    if start:
        assert found.convention == convention and found.told and not found.decisive
    else:
        assert found == Judged(convention)


@pytest.mark.parametrize("shift", [(-9, 6), *(pytest.param(s, marks=pytest.mark.slow) for s in ((12, 0), (0, -12)))])
def test_depth_beside_the_colour_is_found_with_its_direction(sound, shift):
    room, frames = sound
    moved = Spoilt(room, frames, lambda f: replace(f, depth=np.roll(f.depth, shift, (1, 0))))
    finding = only_error(diagnose(moved))
    assert "the edges of depth fit" in finding.what
    u, v = map(int, finding.what.split("(")[1].split(")")[0].split(","))
    assert abs(u + shift[0]) <= 2 and abs(v + shift[1]) <= 2


class Growing(Spoilt):
    """As of a live camera: nobody knows how many frames there will be."""

    grows = True

    def __len__(self) -> int:
        return 1


def test_depth_beside_the_colour_of_a_live_camera_is_found(sound):
    room, frames = sound
    live = Growing(room, frames, lambda f: replace(f, depth=np.roll(f.depth, 12, 1)))
    seen = edges.DepthEdges(live)
    for frame in frames:
        seen.see(live._change(frame))
    assert "the edges of depth fit" in only_error(seen.findings()).what


@pytest.mark.parametrize(
    ("turned", "said"), [(np.s_[:, ::-1], "mirrored left to right"), (np.s_[::-1, ::-1], "turned by 180 degrees")]
)
def test_depth_that_is_turned_against_the_colour_is_found(sound, turned, said):
    room, frames = sound
    finding = only_error(edges.seen(Spoilt(room, frames, lambda f: replace(f, depth=f.depth[turned]))).findings())
    assert said in finding.what


@pytest.mark.parametrize("scale", one_fast(1.15, 0.8, 1.3, 2.0))
def test_positions_of_another_scale_are_found(sound, scale):
    room, frames = sound

    def stretched(_: int, T: np.ndarray) -> np.ndarray:
        T = T.copy()
        T[:3, 3] *= scale
        return T

    finding = only_error(diagnose(Spoilt(room, frames, poses=stretched)))
    assert "positions are" in finding.what
    assert float(finding.what.split("positions are ")[1].split()[0]) == pytest.approx(1 / scale, rel=0.06)


@pytest.mark.parametrize("by_poses", [True, False])
def test_focal_length_and_depth_are_measured_within_their_stated_errors(sound, by_poses):
    room, frames = sound
    other = replace(room.camera, fx=1.15 * room.camera.fx, fy=1.15 * room.camera.fy)
    spoilt = Spoilt(room, frames, lambda f: replace(f, camera=other, depth=f.depth * np.float32(1.2)))
    spoilt.camera, spoilt.timestamps = other, 3 * np.asarray(room.timestamps)
    found = intrinsics.measured(spoilt, by_poses)
    assert found.focal.decisive and found.focal.std < 0.02
    assert found.focal.factor == pytest.approx(1 / 1.15, rel=2 * found.focal.std)
    assert (found.depth is not None) == by_poses
    if by_poses:  # 20 % are too little for points to fit no more, and enough to be told
        assert found.depth.decisive and found.depth.factor == pytest.approx(1 / 1.2, rel=2 * found.depth.std)
        assert [finding.level for finding in intrinsics.findings_of(found, other)] == ["warning", "warning"]
        assert "% shorter than it was read" in str(found)
        assert f"write fx: {found.focal.factor * other.fx:.1f}" in intrinsics.findings_of(found, other)[0].remedy


def test_what_could_not_be_judged_is_said(sound):
    room, frames = sound
    flat = selected(Spoilt(room, frames, lambda f: replace(f, depth=np.full_like(f.depth, 2.0))), 0, 20)
    assert any("too few steps of depth" in question for question in diagnosis(flat).not_judged)


@pytest.mark.parametrize(("by_points", "decisive"), [(1.14, True), (1.09, True), (1.04, False), (0.98, False)])
def test_a_focal_length_by_poses_is_told_only_where_the_points_alone_are_nearer_to_it_than_to_the_stated(
    by_points, decisive
):
    found = intrinsics._confirmed(intrinsics.Length(1.16, 0.01), [intrinsics.Length(by_points, 0.05)])
    assert found.factor == 1.16 and found.decisive == decisive
    assert intrinsics._confirmed(intrinsics.Length(1.16, 0.01), None).decisive


def test_six_frames_of_a_sound_recording_tell_no_wrong_length(shared_data):
    office = open_sequence(shared_data / "realsense_office")
    assert not diagnose(selected(office, frames=6))


def test_a_short_recording_tells_no_focal_length(sound):
    assert intrinsics.measured(Spoilt(*sound)) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["redkitchen", "icl_livingroom1", "nyuv2_cafe", "realsense_office"])
@pytest.mark.parametrize("factor", [0.85, 1.0, 1.2])
def test_focal_lengths_of_public_recordings_are_measured_within_two_standard_errors(shared_data, name, factor):
    recording = open_sequence(shared_data / name)
    camera = replace(recording.camera, fx=factor * recording.camera.fx, fy=factor * recording.camera.fy)
    found = intrinsics.measured(RecalibratedSequence(recording, camera))
    assert abs(np.log(factor * found.focal.factor)) < 2 * found.focal.std
    assert not (found.focal.decisive and factor == 1)


@pytest.mark.parametrize("lag", one_fast(-7, -3, 4))
def test_poses_of_other_frames_are_found_with_their_delay(sound, lag):
    room, frames = sound
    last = len(frames) - 1
    finding = only_error(
        diagnose(Spoilt(room, frames, poses=lambda i, T: room.poses[i - lag] if 0 <= i - lag <= last else None))
    )
    assert f"poses of {abs(lag)} frames {'later' if lag > 0 else 'earlier'}" in finding.what


class OtherDepth(Spoilt):
    """Depth of other frames than colour and poses: late, where `delay` is positive."""

    def __init__(self, sound: Sequence, frames: list[Frame], delay: int) -> None:
        super().__init__(sound, frames)
        self._delay = delay

    def __getitem__(self, index: int) -> Frame:
        other = min(max(index - self._delay, 0), len(self) - 1)
        return replace(super().__getitem__(index), depth=self._frames[other].depth)


@pytest.mark.parametrize("delay", one_fast(3, -6, 8))
def test_depth_of_another_moment_is_found_with_its_delay(sound, delay):
    finding = only_error(diagnose(OtherDepth(*sound, delay)))
    assert f"depth images that come {abs(delay)} frames" in finding.what
    assert ("later" if delay > 0 else "earlier") in finding.what
    assert ("take" if delay > 0 else "add") in finding.remedy


class EverySecondDepth(OtherDepth):
    """The same of a depth camera that is half as fast as the colour camera."""

    def __getitem__(self, index: int) -> Frame:
        frame = super().__getitem__(index)
        return frame if index % 2 == 0 else replace(frame, depth=None)


def test_the_delay_of_a_slower_depth_camera_is_found(sound):
    (finding,) = edges.seen(EverySecondDepth(*sound, 4)).findings()
    assert "depth images that come 4 frames" in finding.what and "later" in finding.what


AXES = {
    "x forward, y left, z up": np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float).T,
    "x right, y up, z backward": np.diag([1.0, -1.0, -1.0]),
    "x right, y forward, z down": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]], float).T,
    "x left, y up": np.diag([-1.0, -1.0, 1.0]),
}


@pytest.mark.parametrize("name", one_fast(*AXES))
@pytest.mark.parametrize("inverted", one_fast(True, False))
def test_other_axes_are_told_from_inverted_poses(sound, name, inverted):
    """Multiplying as the remedy says gives the true poses back, whatever the words."""
    room, frames = sound
    turn = np.eye(4)
    turn[:3, :3] = AXES[name]

    def written(_: int, T: np.ndarray) -> np.ndarray:
        return inverse(T @ turn) if inverted else T @ turn

    finding = only_error(diagnose(Spoilt(room, frames, poses=written)))
    assert ("T_camera_world" in finding.what) == inverted
    assert "right along" in finding.what or "OpenGL" in finding.what


@pytest.mark.slow
def test_inverted_poses_are_called_inverted(sound):
    room, frames = sound
    spoilt = Spoilt(room, frames, poses=lambda _, T: inverse(T))
    spoilt.timestamps = 3 * np.asarray(room.timestamps)  # as many seconds as tell lengths
    findings, lengths, _ = diagnosis(spoilt)
    assert "when they are inverted: they are T_camera_world" in only_error(findings).what
    assert lengths is None  # by poses that are wrong


@pytest.mark.slow
def test_a_world_far_from_its_origin_is_hinted_at(sound):
    room, frames = sound
    far = np.eye(4)
    far[:3, 3] = 500000, 5400000, 300
    findings = diagnose(Spoilt(room, frames, poses=lambda _, T: far @ T))
    assert [finding.level for finding in findings] == ["hint"] and "5400" in findings[0].what


def test_depth_beyond_the_usual_range_is_hinted_at(sound):
    room, frames = sound
    stretch = np.diag([1.9, 1.9, 1.9, 1.0])
    far = Spoilt(
        room,
        frames,
        lambda f: replace(f, depth=f.depth * np.float32(1.9)),
        lambda _, T: stretch @ T @ np.linalg.inv(stretch),
    )
    findings = diagnose(far)
    assert [finding.level for finding in findings] == ["hint"]
    assert "many readings lie outside 0.3 to 5 m" in findings[0].what and "slam.fusion.far" in findings[0].remedy


@pytest.mark.parametrize(("factor", "scene"), one_fast((0.1, "of small things"), (9.0, "outdoors")))
def test_unusual_depth_is_a_hint_and_no_reason_to_stop(sound, factor, scene):
    room, frames = sound

    def stretched(_: int, T: np.ndarray) -> np.ndarray:
        T = T.copy()
        T[:3, 3] *= factor
        return T

    other = Spoilt(room, frames, lambda f: replace(f, depth=f.depth * np.float32(factor)), stretched)
    findings = diagnose(other)
    assert [finding.level for finding in findings] == ["hint"] and scene in findings[0].remedy
    assert implausible_depth(other) is None


# The same in a real recording, whose poses and depth are only good to a few pixels


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["none", "ray", "shift", "wrong", "scale", "delay"])
def test_faults_planted_in_a_real_recording_are_found(kitchen, fault):
    recording, frames = kitchen

    def scaled(_: int, T: np.ndarray) -> np.ndarray:
        T = T.copy()
        T[:3, 3] *= 1.5
        return T

    wrong = exp(np.array([0.2, -0.1, 0.1, 0.1, 0.1, 0]))
    change, poses = {
        "none": (lambda f: f, lambda i, T: T),
        "ray": (to_ray, lambda i, T: T),
        "shift": (lambda f: replace(f, depth=np.roll(f.depth, 13, 1)), lambda i, T: T),
        "wrong": (lambda f: f, lambda i, T: T @ wrong if i == 77 else T),
        "scale": (lambda f: f, scaled),
        "delay": (lambda f: f, lambda i, T: recording.poses[i - 5] if i >= 5 else None),
    }[fault]
    findings = diagnose(Spoilt(recording, frames, change, poses))
    expected = {
        "ray": "ray",
        "shift": "edges of depth",
        "wrong": "frame 77",
        "scale": "positions are 0.6",
        "delay": "poses of 5 frames later",
    }
    if fault == "none":
        assert findings == []
    else:
        assert expected[fault] in only_error(findings).what


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["redkitchen", "icl_livingroom1", "nyuv2_cafe", "realsense_office", "samples/open3d", "samples/7scenes_stairs"],
)
def test_public_recordings_raise_no_alarm(shared_data, name):
    """realsense_office gets a hint, rightly: its images fit the poses of two frames before three times as well."""
    findings = diagnose(open_sequence(shared_data / Path(name)))
    assert [finding.level for finding in findings] == (["hint"] if name == "realsense_office" else [])


def test_a_convention_that_fits_better_but_not_well_is_not_taken_for_the_answer():
    found = _misread(("qw-first", "opengl"))
    assert "in no convention well" in found.what and "mirrored images" in found.remedy
    assert "--pose-convention qw-first,opengl" in found.remedy


def test_points_that_determine_no_focal_length_tell_none():
    """Matched at random, they ask for an ever longer one."""
    rng, camera = np.random.default_rng(0), RoomSequence(frames=1).camera

    def some() -> tuple[np.ndarray, np.ndarray]:
        return rng.uniform(20, 460, (60, 2)).astype(np.float32), rng.uniform(1, 3, 60).astype(np.float32)

    pairs = []
    for first in range(0, 240, 30):
        (here, near), (there, far) = some(), some()
        pairs.append(Pair(first, first + 10, (here, there), (near, far), np.eye(4)))
    assert intrinsics._solved(pairs, camera, (0.0012, 0.0019), False, intrinsics.PIXEL_STD) is None
