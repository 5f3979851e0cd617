"""Depth that was measured beside its colour image is moved to that image's moment: laws, readers, a whole run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semslam import images, poses
from semslam.depth.synchronised import Synchroniser, moved
from semslam.frame import Frame, Observation, Tracking
from semslam.metrics.trajectory import absolute_error
from semslam.perception import PerceptionConfig
from semslam.slam import Slam, SlamConfig
from semslam.tracking.tracker import Tracker
from semslam.trajectory import Trajectory
from sequences import open_sequence
from sequences.conversion import convert
from sequences.room.room import RoomSequence, orbit, render

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


def test_moved_depth_is_what_the_camera_sees_from_there() -> None:
    here, there = shaken(0.6), shaken(0.64)
    found = moved(render(CAMERA, there).depth, CAMERA, poses.inverse(here) @ there)
    truth = render(CAMERA, here).depth
    off = np.abs(found - truth)[(found > 0) & (truth > 0)]
    before = np.abs(render(CAMERA, there).depth - truth)
    assert np.median(before) > 0.005
    assert np.median(off) < 0.001 and np.mean(off < 0.01) > 0.97 and np.mean(found > 0) > 0.95


def test_depth_that_does_not_move_stays_the_same() -> None:
    depth = render(CAMERA, shaken(0.0)).depth
    depth[50:80, 60:90] = 0
    np.testing.assert_allclose(moved(depth, CAMERA, np.eye(4)), depth, rtol=1e-6)
    assert not moved(np.zeros_like(depth), CAMERA, shaken(0.1)).any()


@pytest.mark.parametrize("delay", [DELAY, -DELAY])
def test_tracking_agrees_with_both_images_of_a_frame(delay: float) -> None:
    def error(synchronise: bool) -> float:
        config = SlamConfig(PerceptionConfig(labels="none"))
        correct = Synchroniser() if synchronise else None
        slam = Slam(CAMERA, config, track=Tracker(config.tracking), correct=correct)
        steps = [slam.step(frame_at(i, delay)) for i in range(36)]
        times = np.arange(len(steps)) / 30
        tracked = Trajectory(times, np.array([step.tracking.T_world_camera for step in steps]))
        return absolute_error(tracked, Trajectory(times, np.array([shaken(t) for t in times]))).rmse

    assert error(synchronise=True) < 0.5 * error(synchronise=False)


def test_velocity_is_forgotten_over_gaps_and_lost_frames_and_survives_a_break() -> None:
    def depth_after(tracked: list[tuple[float, bool]], restored: bool = False) -> np.ndarray:
        stage = Synchroniser()
        for seconds, ok in tracked:
            stage(observed(seconds), None)
            stage.tracked(Tracking(shaken(seconds), ok))
        if restored:
            state, stage = stage.state(), Synchroniser()
            stage.restore(state)
        return stage(observed(0.1), None).depth

    def observed(seconds: float) -> Observation:
        frame = Frame(0, seconds, color, CAMERA, depth, depth_delay=DELAY)
        return Observation(frame, CAMERA, color, depth)

    view = render(CAMERA, shaken(0.1 + DELAY))
    color, depth = view.color, view.depth
    followed = [(0.0, True), (1 / 30, True), (2 / 30, True)]
    assert not np.array_equal(depth_after(followed), depth)
    np.testing.assert_array_equal(depth_after(followed, restored=True), depth_after(followed))
    np.testing.assert_array_equal(depth_after([*followed[:2], (2 / 30, False)]), depth)
    np.testing.assert_array_equal(depth_after([(-9.0, True), (-9.0 + 1 / 30, True)]), depth)
    np.testing.assert_array_equal(depth_after([]), depth)


def write_tum(path: Path, delay: float, pairs: bool = False) -> Path:
    """A TUM folder of three frames, or its pairs in associations.txt."""
    lines: dict[str, list[str]] = {"rgb": [], "depth": []}
    for i in range(3):
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
    np.testing.assert_allclose([frame.depth_delay for frame in sequence], -0.012, atol=1e-6)
    assert any("12 ms" in note for note in sequence.assumptions)


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


def test_images_of_one_moment_are_not_spoken_of(tmp_path: Path) -> None:
    sequence = open_sequence(write_tum(tmp_path, 0.0))
    assert sequence[1].depth_delay == 0 and not any("apart from" in note for note in sequence.assumptions)
