"""What a finished run says of itself, from its metrics alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from semslam.camera import Camera
from semslam.commands.mapping.summary import frames_fused, look_for_cause, summary
from semslam.frame import Frame, Observation, Step, Tracking
from semslam.runs.config import settings_of
from semslam.runs.progress import Progress

CAMERA = Camera(640, 480, 320.0, 320.0, 319.5, 239.5)
FIGURES = {
    "frames": 10,
    "frames_fused": 9,
    "frames_per_second": 4.26,
    "surfels": 1234,
    "lost": [],
    "submaps": 1,
    "poses_rejected": None,
    "poses_contradicted": None,
}
DOCTOR = "`semslam doctor room` looks for the cause"


def said(changes: dict[str, Any], reason: str = "", live: bool = False) -> list[str]:
    """The sentences of a run with those metrics, after the first."""
    first, *others = summary(FIGURES | changes, settings_of(None, {"sequence": "room"}), CAMERA, reason, live, 11.6)
    assert first == "9 of 10 frames fused, 4.3 frames/s (12 s with start and final files), 1234 surfels"
    return others


def test_a_run_without_trouble_says_one_sentence():
    assert said({}) == []


@pytest.mark.parametrize("live", [False, True])
def test_lost_frames_are_told_with_the_reason_and_a_recording_with_what_looks_for_the_cause(live):
    advice = "" if live else f"; {DOCTOR}"
    one = f"frame 4 could not be tracked and is not in the map, because of fog{advice}"
    assert said({"lost": [4]}, "of fog", live) == [one]
    (many,) = said({"lost": [4, 5, 8]}, "of fog", live)
    assert many.startswith("3 frames could not be tracked") and many.endswith(
        f"from frame 4 to 8; the last, because of fog{advice}"
    )


def test_frames_that_were_tracked_but_not_fused_are_told_with_the_reason():
    poor = {"poor": [4, 5, 7], "poor_reason": "of fog", "depth_repeated": [5]}
    assert said(poor)[0] == "2 frames (4, 7) tracked but not fused; the last, because of fog"


def test_frames_that_could_not_be_read_are_counted():
    assert said({"corrupt": [3]}) == ["frame 3 could not be read and is not in the map"]
    assert said({"corrupt": [3, 5]}) == ["2 frames (3, 5) could not be read and are not in the map"]


def test_what_is_undone_of_the_times_of_depth_is_told_once_and_is_no_warning():
    assert said({"depth_delay_s": 0.017, "readout_s": 0.03}) == [
        "depth is 17 ms apart from its colour image (median) and was read row by row in 30 ms, as a Kinect reads; that "
        "was undone (--set slam.perception.synchronise=false leaves it)"
    ]
    assert said({"depth_delay_s": None, "readout_s": 0.0}) == []


def test_a_frame_whose_pose_was_rejected_is_not_told_again_as_lost():
    assert said({"lost": [2, 3], "poses_rejected": [2, 3]}) == [
        f"2 frames (2, 3) left out, since the images contradict the given pose; {DOCTOR}"
    ]


def test_a_frame_without_a_given_pose_was_not_tracked():
    (sentence,) = said({"lost": [4, 6], "poses_rejected": []}, "poses.txt has no pose for it")
    assert sentence.startswith("2 frames had no pose and are not in the map") and "--poses tracked" in sentence


def test_lengths_are_the_networks_guess_unless_a_size_was_given():
    figures = {"scale_std": 0.1, "visual_keyframes": 7}
    (guessed,) = said(figures | {"scale_from": "network"})
    (measured,) = said(figures | {"scale_from": "height=1.5"})
    assert "the network's guess, good to about 10 %" in guessed and "--scale-from" in guessed
    assert measured == "no depth camera: tracked by 7 keyframes; scaled by height=1.5, good to about 10 %"


@pytest.mark.parametrize(("offset", "clocks"), [(0.0, ""), (0.02, "fit 20 ms later"), (-0.02, "fit 20 ms earlier")])
def test_clocks_are_told_to_differ_where_corrected_poses_fit_other_times(offset, clocks):
    moved = {"poses_misfit_px": 3.0, "poses_misfit_corrected_px": 1.0, "poses_moved_m": 0.02, "poses_turned_deg": 0.5}
    (sentence,) = said({"poses_corrected": True, "poses_time_offset_s": offset} | moved)
    assert clocks in sentence and ("clocks" in sentence) == bool(clocks)
    assert "corrected to 1.0 pixels: moved by 2.0 cm, turned by 0.5 degrees" in sentence


def test_an_estimated_focal_length_is_told_in_pixels_and_degrees():
    (sentence,) = said({"focal_std": 0.03, "focal_pixels": 320.0})
    assert "320 pixels +- 3 % (90.0 degrees across; --fov sets it)" in sentence


def test_held_out_frames_that_the_map_does_not_cover_are_told_without_a_figure():
    figures = {"frames_held_out": 3, "held_out_coverage": 0.0, "held_out_depth_median_m": float("nan")}
    without = figures | {"held_out_measured": 0}
    assert said(without) == ["3 frames held out: they have no depth to judge the map by"]
    figures["held_out_measured"] = 7
    assert said(figures) == ["3 frames held out: none of their depth is covered by the map"]
    assert said(figures | {"held_out_unposed": 1}) == [
        "2 of 3 frames held out (where the others were is not known): none of their depth is covered by the map"
    ]


def test_the_command_that_looks_for_the_cause_of_lost_frames_looks_at_those_that_were_taken():
    part = {"sequence": "a room", "start": 1, "frames": 5}
    assert (
        look_for_cause(settings_of(None, part)) == "`semslam doctor 'a room' --start 1 --frames 5` looks for the cause"
    )
    assert look_for_cause(settings_of(None, {"sequence": "room"})) == DOCTOR


def test_the_command_that_looks_for_the_cause_opens_the_recording_in_the_same_way():
    options = {"sequence": "a", "kind": "tum", "camera": "c.yaml", "depth_scale": 5000.0, "registered": False}
    assert settings_of(None, options).doctor == (
        "semslam doctor a --kind tum --camera c.yaml --depth-scale 5000.0 --unregistered"
    )


def test_poses_of_a_file_are_none_that_doctor_knows():
    settings = settings_of(None, {"sequence": "room", "poses": "poses.txt"})
    found = summary(FIGURES | {"poses_rejected": [2]}, settings, CAMERA, "", False, 11.6)
    assert found[1] == "frame 2 left out, since the images contradict the given pose"


def test_a_reason_is_that_of_a_frame_that_is_told():
    """Frames whose pose was rejected and frames whose depth is repeated are told in sentences of their own."""

    def step(index: int, state: str, reason: str) -> Step:
        lost = state == "lost"
        tracking = Tracking(np.eye(4), ok=not lost, sound=False, reason=reason)
        frame = Frame(index, index / 30, np.zeros((4, 4, 3), np.uint8), CAMERA)
        return Step(frame, Observation.of(frame), tracking)

    progress = Progress(poses_rejected=[1, 5], depth_repeated=[6])
    said = [(1, "lost", "rejected"), (2, "lost", "no pose"), (3, "poor", "fog"), (5, "lost", "rejected")]
    for told in [*said, (6, "poor", "no depth")]:
        progress.record(step(*told))
    assert (progress.reason, progress.poor_reason) == ("no pose", "fog")


@pytest.mark.parametrize(("between", "known"), [(1 / 30, True), (1 / 3, False)])
def test_depth_is_moved_only_where_poses_are_near_in_time(between, known):
    times = [k * between for k in range(4)]
    progress = Progress(4, [0, 1, 2, 3], times, [np.eye(4)] * 4, submaps=[0] * 4)
    assert progress.motion_known is known


def test_the_seconds_of_a_command_are_not_told_where_most_frames_are_of_one_before():
    settings = settings_of(None, {"sequence": "room"})
    assert "(12 s with" in frames_fused(FIGURES | {"seconds": 9.0}, settings, 12.0)
    assert "with start" not in frames_fused(FIGURES | {"seconds": 190.8}, settings, 24.0)


def test_parts_that_have_not_met_the_map_are_counted_and_named():
    (one,) = said({"submaps": 2, "frames_apart": 19})
    assert one.startswith("19 frames saw a part of the scene") and one.endswith(
        "beside it: map_2.ply, trajectory_2.txt"
    )
    (two,) = said({"submaps": 3, "frames_apart": 19})
    assert two.startswith("19 frames saw 2 parts of the scene") and two.endswith("trajectory_2.txt, and so on")
