"""Cameras that are recording now: the newest image counts, what is late is dropped, and the recording stays."""

from __future__ import annotations

import json
import os
import signal
import time
from functools import cache
from itertools import cycle, islice

import numpy as np
import pytest
from typer.testing import CliRunner

from semslam.camera import Camera
from semslam.cli import app
from semslam.frame import Frame
from semslam.images import depth_units
from semslam.runs.recording import fingerprint
from semslam.slam import Slam
from sequences import open_sequence
from sequences.live import devices
from sequences.live.capture import Captured
from sequences.live.devices import open_device
from sequences.live.live import LiveSequence
from sequences.room.room import RoomSequence

SMALL = "room:frames=4,width=96,height=72"
RATE = 30.0  # images a second


@cache
def walk() -> tuple[RoomSequence, list[Frame]]:
    room = RoomSequence(frames=45, width=96, height=72)
    return room, list(room)


class FakeCamera:
    """A walk through the room, to and fro, at 30 images a second, whether or not anybody takes them."""

    name, sensor = "fake", "synthetic"

    def __init__(self, images: int, depth: bool = True) -> None:
        room, frames = walk()
        self.camera, self.depth_scale = room.camera, 5000.0 if depth else None
        self.frames = [*islice(cycle([*frames, *frames[-2:0:-1]]), images)]
        self._given, self._began, self.closed = 0, time.monotonic(), False

    def read(self) -> Captured | None:
        if self._given == len(self.frames):
            return None
        due = self._began + self._given / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        frame = self.frames[self._given]
        self._given += 1
        units = depth_units(frame.depth, 5000.0)
        units[0, 0] = 65535  # which means none
        return Captured(due, frame.color, units if self.depth_scale else None)

    def close(self) -> None:
        self.closed = True


def test_a_slow_taker_gets_the_newest_image_and_the_others_are_counted(tmp_path):
    camera = FakeCamera(30)
    live = LiveSequence(camera, tmp_path / "recording", warm_up=0)
    late = []
    for index in live.numbers():
        late.append(time.monotonic() - camera._began - camera.frames[0].timestamp - live[index].timestamp)
        time.sleep(0.11)
    assert camera.closed and len(live) <= 10
    assert live.dropped == live.seen - len(live) >= 15
    assert f"{live.dropped} of {live.seen} images" in live.assumptions[0]
    assert np.median(late) - min(late) < 0.06, "no image is older than the last one taken, however long it goes on"


def test_the_folder_holds_what_was_seen_bit_by_bit(tmp_path):
    live = LiveSequence(FakeCamera(6), tmp_path / "recording", warm_up=0)
    seen = [live[index] for index in live.numbers()]
    recorded = open_sequence(tmp_path / "recording")
    assert recorded.camera == live.camera and recorded.sensor == "synthetic" and len(recorded) == len(live)
    np.testing.assert_array_equal(recorded.timestamps, live.timestamps)
    assert fingerprint(recorded) == fingerprint(live), "the run knows its recording again"
    for frame, again, late in zip(seen, recorded, live):
        for other in (again, late):
            assert other.timestamp == frame.timestamp
            np.testing.assert_array_equal(other.color, frame.color)
            np.testing.assert_array_equal(other.depth, frame.depth)
    with pytest.raises(ValueError, match="holds a recording; name another"):
        LiveSequence(FakeCamera(1), tmp_path / "recording")


def test_a_lens_is_undistorted_before_anything_is_recorded(tmp_path):
    camera = FakeCamera(10, depth=False)  # of which a busy machine may miss some
    focal = np.float64(80.0)  # as libraries of cameras give it
    camera.camera = Camera(96, 72, focal, focal, 47.5, 35.5, (-0.3, 0.1, 0.0, 0.0))
    live = LiveSequence(camera, tmp_path / "recording", warm_up=0)
    (first, *_) = [live[index] for index in live.numbers()]
    assert live.camera.distortion is None and not live.has_depth
    assert open_sequence(tmp_path / "recording").camera == live.camera
    assert any(np.array_equal(first.color, camera.camera.undistort(frame.color)) for frame in camera.frames)


def test_a_camera_ends_when_asked_to_or_when_it_has_enough(tmp_path):
    live = LiveSequence(FakeCamera(45), tmp_path / "one", frames=3, warm_up=0)
    assert list(live.numbers()) == [0, 1, 2]
    asked: list[bool] = []
    live = LiveSequence(FakeCamera(45), tmp_path / "two", stop=lambda: bool(asked), warm_up=0)
    for index in live.numbers():
        if index == 2:
            asked.append(True)
    assert len(live) == 3 and len(open_sequence(tmp_path / "two")) == 3


def test_a_webcam_without_its_lens_says_what_it_needs_and_which_cameras_are_here(monkeypatch):
    monkeypatch.setattr(devices, "plugged_in", lambda: "cameras found here: webcam:2")
    with pytest.raises(ValueError, match=r"--fov DEGREES .* --camera FILE .*; cameras found here: webcam:2"):
        open_device("webcam")
    with pytest.raises(OSError, match=r"webcam:63: there is no such camera.*; cameras found here: webcam:2"):
        open_device("webcam:63", fov=60.0)


def test_a_camera_that_fails_ends_the_recording_and_one_without_an_image_is_one_line(tmp_path, caplog):
    camera = FakeCamera(3)
    camera.frames = []
    with pytest.raises(KeyboardInterrupt):  # which is not the camera's fault
        LiveSequence(camera, tmp_path / "ended", warm_up=0, stop=lambda: True)
    with pytest.raises(OSError, match="fake: the camera gives no image; is it plugged in"):
        LiveSequence(camera, tmp_path / "none", warm_up=0)
    camera = FakeCamera(30)
    read = camera.read

    def unplugged() -> Captured | None:
        if camera._given == 8:
            raise RuntimeError("device disconnected")
        return read()

    camera.read = unplugged  # type: ignore[method-assign]
    live = LiveSequence(camera, tmp_path / "broken", warm_up=0)
    assert 0 < len(list(live.numbers())) <= 8
    assert "fake: the recording ends here: device disconnected" in caplog.text


def test_devices_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="--live is for webcam, realsense"):
        devices.open_device("kinect")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "webcam").mkdir()  # what it recorded, perhaps
    for name in ("webcam:0", "webcam"):
        with pytest.raises(ValueError, match="--fov DEGREES"):
            devices.open_device(name)
    result = CliRunner().invoke(app, ["reconstruct", "--live", "--every", "2", "--out", str(tmp_path)])
    assert "--every is for recordings, not for --live" in str(result.exception)


@pytest.mark.slow
def test_a_live_run_keeps_up_and_is_the_run_of_its_recording(tmp_path, monkeypatch):
    """With a step slower than three images, two of three are dropped; the map is that of the recorded frames."""
    step = Slam.step
    words = ["--labels", "none", "--no-mesh", "--poses", "tracked"]
    compiled = CliRunner().invoke(app, ["reconstruct", SMALL, "--out", str(tmp_path / "compiled"), *words])
    assert compiled.exit_code == 0, compiled.output
    monkeypatch.setitem(devices.DEVICES, "webcam", lambda *_: FakeCamera(900))  # on a busy machine, too
    monkeypatch.setattr(Slam, "step", lambda slam, frame: (time.sleep(0.1), step(slam, frame))[1])
    live = CliRunner().invoke(app, ["reconstruct", "--live", "--out", str(tmp_path / "live"), "--frames", "8", *words])
    assert live.exit_code == 0, live.output
    assert "8 frames recorded" in live.output and "8 of 8 frames fused" in live.output
    monkeypatch.setattr(Slam, "step", step)
    recording, again = str(tmp_path / "live" / "recording"), str(tmp_path / "again")
    result = CliRunner().invoke(app, ["reconstruct", recording, "--out", again, *words])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "live" / "map.ply").read_bytes() == (tmp_path / "again" / "map.ply").read_bytes()
    metrics = json.loads((tmp_path / "live" / "metrics.json").read_text())
    assert "images of the camera were dropped" in metrics["assumptions"][0]


@pytest.mark.slow
def test_ctrl_c_leaves_a_valid_run_of_a_camera(tmp_path, monkeypatch):
    step = Slam.step
    monkeypatch.setitem(devices.DEVICES, "webcam", lambda *_: FakeCamera(45))

    def stepped(slam: Slam, frame: Frame):
        if frame.index == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return step(slam, frame)

    monkeypatch.setattr(Slam, "step", stepped)
    out = tmp_path / "run"
    words = ["reconstruct", "--live", "--out", str(out), "--labels", "none", "--no-mesh", "--poses", "tracked"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    metrics = json.loads((out / "metrics.json").read_text())
    assert 3 <= metrics["frames"] == len(open_sequence(out / "recording")) <= 5
    assert (out / "map.ply").is_file() and (out / "preview.png").is_file()
