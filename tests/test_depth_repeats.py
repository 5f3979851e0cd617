"""A camera that hangs is told, and what it repeats is not fused; slow images and a resting camera are none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from variants import one_fast

from semslam.commands.mapping.summary import hung_color, hung_depth
from semslam.doctor.depth.repeats import ColorRepeats, DepthRepeats, hanging
from semslam.frame import Frame
from semslam.judging.run import judged_recording
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.finished.sources import sources_of
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from sequences.recordings.folder import write_folder
from sequences.room.room import NOISE, RoomSequence, orbit

FRAMES = list(RoomSequence(frames=24, width=80, height=60))


def with_depth_of(index: np.ndarray) -> list[Frame]:
    """The room's frames, each with the depth of another one."""
    return [replace(frame, depth=FRAMES[i].depth) for frame, i in zip(FRAMES, index)]


HUNG = with_depth_of(np.where((np.arange(24) > 8) & (np.arange(24) < 16), 8, np.arange(24)))


def test_depth_that_stays_while_colour_changes_is_told():
    (finding,) = hanging(HUNG)
    assert "6 frames, from 10 to 15" in finding.what and "hung" in finding.what
    assert hanging(with_depth_of(np.zeros(24, int)))


@pytest.mark.parametrize("slower", [1, 2, 3, 5])
def test_depth_slower_than_colour_does_not_hang(slower):
    assert hanging(with_depth_of(np.arange(24) // slower * slower)) == []


def test_a_resting_camera_and_missing_depth_do_not_hang():
    rng = np.random.default_rng(0)
    noisy = [np.clip(FRAMES[0].color + rng.normal(0, 4, (60, 80, 3)), 0, 255).astype(np.uint8) for _ in FRAMES]
    assert hanging([replace(FRAMES[0], index=i, color=color) for i, color in enumerate(noisy)]) == []
    assert hanging([replace(frame, depth=np.zeros((60, 80), np.float32)) for frame in FRAMES]) == []


def test_what_was_seen_is_kept():
    whole, first, second = DepthRepeats(), DepthRepeats(), DepthRepeats()
    for frame in HUNG[:12]:
        first.see(frame)
    second.restore(first.state())
    assert [whole.see(frame) for frame in HUNG][12:] == [second.see(frame) for frame in HUNG[12:]]


def with_color_of(index: np.ndarray) -> list[Frame]:
    """The room's frames, each with the colour of another one."""
    return [replace(frame, color=FRAMES[i].color) for frame, i in zip(FRAMES, index)]


COLOR_HUNG = with_color_of(np.where((np.arange(24) > 8) & (np.arange(24) < 16), 8, np.arange(24)))


def test_colour_that_stays_while_depth_changes_is_told():
    (finding,) = hanging(COLOR_HUNG)
    assert "the colour of" in finding.what and "to 15, is the image of an earlier frame" in finding.what


@pytest.mark.parametrize("slower", [1, 2, 3, 5])
def test_colour_slower_than_depth_does_not_hang(slower):
    assert hanging(with_color_of(np.arange(24) // slower * slower)) == []


@pytest.mark.parametrize("noise", ["kinect", "realsense", "tof"])
def test_a_resting_camera_before_noisy_depth_does_not_hang(noise):
    still = list(RoomSequence(frames=24, width=160, height=120, noise=NOISE[noise], path=lambda _: orbit(0.0)))
    assert hanging([replace(frame, color=still[0].color) for frame in still]) == []


def test_the_dark_does_not_hang():
    assert hanging([replace(frame, color=np.zeros_like(frame.color)) for frame in FRAMES]) == []


def test_what_was_seen_of_colour_is_kept():
    whole, first, second = ColorRepeats(), ColorRepeats(), ColorRepeats()
    for frame in COLOR_HUNG[:12]:
        first.see(frame)
    second.restore(first.state())
    assert [whole.see(frame) for frame in COLOR_HUNG][12:] == [second.see(frame) for frame in COLOR_HUNG[12:]]


def test_colour_that_becomes_slower_as_in_the_dark_hangs_only_until_its_rate_is_known():
    walk = list(RoomSequence(frames=120, width=80, height=60, path=lambda seconds: orbit(2 * seconds)))
    index = [i if i < 40 else i // 5 * 5 for i in range(len(walk))]
    repeats = ColorRepeats()
    left_out = [k for k, i in enumerate(index) if repeats.see(replace(walk[k], color=walk[i].color))]
    assert 0 < len(left_out) < 12 and max(left_out) < 60


@pytest.mark.slow
@pytest.mark.parametrize("poses", one_fast("tracked", "dataset"))
def test_a_run_leaves_out_colour_of_another_moment(tmp_path, poses):
    recording = RoomSequence(frames=24, width=160, height=120)
    write_folder(recording, tmp_path / "recording")
    files = sorted((tmp_path / "recording" / "color").iterdir())
    for file in files[9:16]:
        file.write_bytes(files[8].read_bytes())
    settings = {"sequence": str(tmp_path / "recording"), "poses": poses, "slam": {"perception": {"labels": "none"}}}
    run = prepare(settings_of(None, settings), tmp_path / "run")
    for _ in run:
        pass
    finish(run, mesh=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    out = metrics["color_repeated"]
    assert out and out == list(range(out[0], 16)) and metrics["frames_lost"] == 0
    assert metrics["frames_fused"] == 24 - len(out) and "to 15, is the image" in (hung_color(metrics) or "")
    assert RunFolder.open(tmp_path / "run").load_progress().color_repeated == out


@pytest.mark.slow
@pytest.mark.parametrize("readout", one_fast(0.0, 0.03))
def test_a_run_does_not_fuse_depth_of_another_moment(tmp_path, readout):
    """Nor where the same rows are moved otherwise in each frame, as the camera moves."""
    recording = RoomSequence(frames=24, width=80, height=60)
    recording.readout = readout
    write_folder(recording, tmp_path / "recording")
    files = sorted((tmp_path / "recording" / "depth").iterdir())
    for file in files[9:16]:
        file.write_bytes(files[8].read_bytes())
    run = prepare(settings_of(None, {"sequence": str(tmp_path / "recording"), "poses": "dataset"}), tmp_path / "run")
    for _ in run:
        pass
    finish(run, mesh=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["depth_repeated"] == [10, 11, 12, 13, 14, 15] and metrics["frames_fused"] == 18
    assert "6 frames, from 10 to 15" in (hung_depth(metrics) or "")
    folder = RunFolder.open(tmp_path / "run")
    recording = judged_recording(folder.open_sequence(), folder.load_config(), folder.load_progress())
    for again in (sources_of(folder)[-1].sequence, recording, run.frames):
        assert [i for i in range(24) if not again.depth_of(i).any()] == [10, 11, 12, 13, 14, 15]
        assert not again[12].depth.any() and again[16].depth.any()
