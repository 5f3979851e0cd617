"""Depth that was measured beside its colour image is moved to that image's moment: laws, readers, a whole run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from variants import one_fast

from semslam import images, poses
from semslam.depth.readout import KINECT_READOUT, has_kinect_steps, readout_of
from semslam.depth.synchronised import synchronised
from semslam.depth.synchronised_sequence import synchronised_by
from semslam.frame import Frame
from semslam.metrics.trajectory import absolute_error
from semslam.perception import PerceptionConfig
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.reconstruct import prepare
from semslam.slam import Slam, SlamConfig
from semslam.tracking.motion import Motion
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Trajectory
from semslam.trajectory.files import write_tum as write_tum_trajectory
from sequences import open_sequence
from sequences.conversion import convert
from sequences.recordings.nyu_raw import moments
from sequences.room.room import NOISE, RoomSequence, orbit, render
from sequences.selected import selected

CAMERA = RoomSequence(1, 320, 240).camera
DELAY = 0.015  # seconds


def shaken(seconds: float) -> np.ndarray:
    """T_world_camera (4, 4) of a camera that a hand moves to and fro from rest, up to 0.5 m/s, looking at one place."""
    swing = (1 - np.cos(np.array([2.4, 2.8, 2.1, 2.0, 2.3]) * seconds)) * [0.16, 0.1, 0.1, 0.02, 0.03]
    return orbit(2.0) @ poses.exp(np.array([*swing, 0.0]))


def frame_at(index: int, delay: float) -> Frame:
    """A frame of the room whose depth was measured `delay` seconds after its colour."""
    seconds = index / 30
    color, depth = render(CAMERA, shaken(seconds)).color, render(CAMERA, shaken(seconds + delay)).depth
    return Frame(index, seconds, color, CAMERA, depth, None, shaken(seconds), delay)


def motion(seconds: float) -> np.ndarray:
    """The camera's twist a second (6,) at a time."""
    return poses.log(poses.inverse(shaken(seconds - 0.001)) @ shaken(seconds + 0.001)) / 0.002


@pytest.mark.slow
def test_depth_is_moved_to_what_the_camera_sees_at_the_moment() -> None:
    there, truth = render(CAMERA, shaken(0.63)), render(CAMERA, shaken(0.6)).depth
    found = synchronised(there.depth, CAMERA, motion(0.615), delay=0.03)
    off = np.abs(found - truth)[(found > 0) & (truth > 0)]
    assert np.median(np.abs(there.depth - truth)) > 0.005
    assert np.median(off) < 0.001 and np.mean(off < 0.01) > 0.97 and np.mean(found > 0) > 0.95


@pytest.mark.slow
def test_rows_are_moved_to_the_moment_of_the_middle_one() -> None:
    truth = render(CAMERA, shaken(0.6)).depth
    rolled = np.stack([render(CAMERA, shaken(0.6 + 0.03 * (row / 239 - 0.5))).depth[row] for row in range(240)])

    def off(depth: np.ndarray) -> float:
        return float(np.abs(depth - truth)[(depth > 0) & (truth > 0)].mean())

    assert off(synchronised(rolled, CAMERA, motion(0.6), delay=0.0, readout=0.03)) < 0.4 * off(rolled)


def test_depth_stays_as_it_is_without_motion_and_where_the_camera_would_have_jumped() -> None:
    depth = render(CAMERA, shaken(0.0)).depth
    depth[50:80, 60:90] = 0
    for velocity in (np.zeros(6), np.array([5.0, 0, 0, 0, 0, 0]), np.array([0, 0, 0, 0, 9.0, 0])):
        np.testing.assert_array_equal(synchronised(depth, CAMERA, velocity, DELAY, 0.03), depth)
    assert not synchronised(np.zeros_like(depth), CAMERA, motion(0.6), DELAY).any()


@pytest.mark.parametrize("delay", one_fast(DELAY, -DELAY))
def test_tracking_agrees_with_both_images_of_a_frame(delay: float) -> None:
    def error(synchronise: bool) -> float:
        config = SlamConfig(PerceptionConfig(labels="none", synchronise=synchronise))
        slam = Slam(CAMERA, config, track=Tracker(config.tracking))
        steps = [slam.step(frame_at(i, delay)) for i in range(36)]
        times = np.arange(len(steps)) / 30
        tracked = Trajectory(times, np.array([step.tracking.T_world_camera for step in steps]))
        return absolute_error(tracked, Trajectory(times, np.array([shaken(t) for t in times]))).rmse

    assert error(synchronise=True) < 0.5 * error(synchronise=False)


def test_depth_is_moved_once(tmp_path: Path) -> None:
    late = open_sequence(write_tum(tmp_path / "tum", 0.0149))
    poses_of_frames = [shaken(t - 99.4) for t in late.timestamps]  # in the midst of a swing
    once = synchronised_by(late, poses_of_frames, 0.02)
    assert not np.array_equal(once[1].depth, late[1].depth)
    assert synchronised_by(once, poses_of_frames, once.readout) is once


def test_velocity_is_of_two_steps_and_forgotten_over_gaps_and_lost_frames() -> None:
    def frame(index: int) -> Frame:
        return Frame(index, index / 30, np.zeros((2, 2, 3), np.uint8), CAMERA)

    def after(indices: Iterable[int], lost: int | None = None) -> Motion:
        motion = Motion(0.5, refine=False)
        for index in indices:
            motion.moved_to(frame(index), shaken(index / 30), lost=index == lost)
        return motion

    steps = [poses.log(poses.inverse(shaken(i / 30)) @ shaken((i + 1) / 30)) * 30 for i in (10, 11)]
    followed = after((10, 11, 12))
    np.testing.assert_allclose(followed.steady_velocity(frame(13)), np.mean(steps, 0), atol=1e-9)
    again = Motion(0.5, refine=False)
    again.restore(followed.state())
    np.testing.assert_array_equal(again.steady_velocity(frame(13)), followed.steady_velocity(frame(13)))
    assert after((10, 11, 12), lost=12).steady_velocity(frame(13)) is None
    assert followed.steady_velocity(frame(300)) is None and followed.steady_velocity(frame(12)) is None
    assert after((10,)).steady_velocity(frame(11)) is None


@pytest.mark.slow
def test_a_run_its_mesh_and_what_it_is_judged_by_are_of_one_moment(tmp_path: Path) -> None:
    """With given poses of moving depth, the map predicts the depth of frames that were held out."""
    frames = write_tum(tmp_path / "tum", 0.0149, count=36)
    times = 100 + np.arange(-3, 40) / 30
    write_tum_trajectory(frames / "groundtruth.txt", Trajectory(times, np.array([shaken(t - 100) for t in times])))

    def run(synchronise: bool, place: str) -> dict:
        settings = {"sequence": str(frames), "slam.perception.labels": "none", "hold_out": 6}
        settings["slam.perception.synchronise"] = synchronise
        prepared = prepare(settings_of(None, settings), tmp_path / place)
        for _ in prepared:
            pass
        return finish(prepared)

    moved, left = run(True, "moved"), run(False, "left")
    assert moved["held_out_depth_median_m"] < 0.6 * left["held_out_depth_median_m"]
    assert (tmp_path / "moved" / "mesh.ply").read_bytes() != (tmp_path / "left" / "mesh.ply").read_bytes()


def write_tum(path: Path, delay: float, pairs: bool = False, count: int = 3) -> Path:
    """A TUM folder of some frames, or its pairs in associations.txt."""
    lines: dict[str, list[str]] = {"rgb": [], "depth": []}
    for i in range(count):
        frame = frame_at(i, delay)
        for kind, time in (("rgb", 100 + i / 30), ("depth", 100 + i / 30 + delay)):
            (path / kind).mkdir(parents=True, exist_ok=True)
            lines[kind].append(f"{time:.6f} {kind}/{time:.6f}.png")
            image = frame.color if kind == "rgb" else images.depth_units(frame.depth, 5000.0)
            images.write_png(path / kind / f"{time:.6f}.png", image)
    if pairs:
        both = "\n".join(f"{depth} {color}" for color, depth in zip(lines["rgb"], lines["depth"]))
        (path / "associations.txt").write_text(both + "\n")
    else:
        for kind, listed in lines.items():
            (path / f"{kind}.txt").write_text("\n".join(listed) + "\n")
    (path / "camera.yaml").write_text("width: 320\nheight: 240\nfx: 262.5\nfy: 262.5\ncx: 159.5\ncy: 119.5\n")
    return path


@pytest.mark.parametrize("pairs", [False, True])
def test_readers_tell_how_late_depth_is(tmp_path: Path, pairs: bool) -> None:
    sequence = open_sequence(write_tum(tmp_path, -0.012, pairs))
    np.testing.assert_allclose(sequence.depth_delays, -0.012, atol=1e-6)
    np.testing.assert_allclose([frame.depth_delay for frame in selected(sequence, 1, None)], -0.012, atol=1e-6)


def test_names_that_are_times_tell_it_too_and_tum_keeps_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tum = write_tum(tmp_path / "tum", 0.012)
    plain = tmp_path / "plain"
    plain.mkdir()
    (tum / "rgb").rename(plain / "color")
    (tum / "depth").rename(plain / "depth")
    (plain / "camera.yaml").write_text((tum / "camera.yaml").read_text() + "depth_scale: 5000\nfps: 30\n")
    read = open_sequence(plain)
    np.testing.assert_allclose([frame.depth_delay for frame in read], 0.012, atol=1e-6)
    convert(read, tmp_path / "again", "tum")
    np.testing.assert_allclose([frame.depth_delay for frame in open_sequence(tmp_path / "again")], 0.012, atol=1e-6)
    assert not any("left out" in message for message in caplog.messages)
    convert(read, tmp_path / "other", "folder")
    assert any("times of depth are left out" in message for message in caplog.messages)


def test_depth_that_is_nearer_to_another_colour_image_loses_its_time_and_no_frame(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    read = open_sequence(write_tum(tmp_path / "tum", 0.012))
    read.depth_delays = np.array([0.019, 0.019, 0.019])
    convert(read, tmp_path / "again", "tum")
    assert len(open_sequence(tmp_path / "again")) == 3
    assert any("times of depth are left out" in message for message in caplog.messages)


def test_images_of_one_moment_to_a_clocks_rounding_are_not_moved(tmp_path: Path) -> None:
    assert not np.any(open_sequence(write_tum(tmp_path, 0.0015)).depth_delays)


def test_a_frame_of_a_raw_scene_is_of_its_colour_images_time() -> None:
    color, depth = np.array([1.0, 2.0, 2.0, 3.0]), np.array([1.01, 1.99, 2.02, 2.98])
    times, delays = moments(color, depth)
    np.testing.assert_allclose(times, [1.0, 2.0, 2.02, 3.0])
    np.testing.assert_allclose(delays, [0.01, -0.01, 0.0, -0.02], atol=1e-12)
    times, delays = moments(np.array([1.0, 2.0, 2.0]), np.array([1.0, 1.9, 1.95]))
    np.testing.assert_allclose(times, [1.0, 1.9, 1.95])
    assert not delays.any()


@pytest.mark.parametrize(("noise", "kinect"), [("kinect", True), ("tof", False), ("realsense", False), ("none", False)])
def test_a_kinect_is_known_by_the_steps_of_its_depth(noise: str, kinect: bool) -> None:
    room = RoomSequence(300, 320, 240, NOISE[noise])
    assert has_kinect_steps(room[i].depth for i in (0, 100, 200)) is kinect


def test_readout_is_as_recorded_or_a_kinects() -> None:
    room, exact = RoomSequence(300, 320, 240, NOISE["kinect"]), RoomSequence(300, 320, 240)
    assert readout_of(room) == 0  # as the room says
    room.readout = exact.readout = None
    assert readout_of(room) == KINECT_READOUT and readout_of(exact) == 0


def test_upright_images_of_a_kinect_are_not_read_row_by_row() -> None:
    upright = RoomSequence(300, 240, 320, NOISE["kinect"])
    upright.readout = None
    assert has_kinect_steps(upright[i].depth for i in (0, 100, 200)) and readout_of(upright) == 0


def test_a_camera_file_may_say_the_readout_and_keeps_it(tmp_path: Path) -> None:
    room = RoomSequence(2, 64, 48, NOISE["kinect"])
    convert(room, tmp_path / "room")
    assert open_sequence(tmp_path / "room").readout == 0
    file = tmp_path / "room" / "camera.yaml"
    file.write_text(file.read_text().replace("readout: 0.0", "readout: fast"))
    with pytest.raises(ValueError, match="readout is 'fast', expected the seconds"):
        open_sequence(tmp_path / "room")
