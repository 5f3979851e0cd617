"""A depth camera that hangs is told, and what it repeats is not fused; slow depth and a resting camera are none."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from variants import one_fast

from semslam.commands.mapping.summary import hung_depth
from semslam.doctor.depth.repeats import DepthRepeats, hanging
from semslam.frame import Frame
from semslam.judging.run import judged_recording
from semslam.runs.config import settings_of
from semslam.runs.finished.finish import finish
from semslam.runs.finished.sources import sources_of
from semslam.runs.folder import RunFolder
from semslam.runs.reconstruct import prepare
from sequences.recordings.folder import write_folder
from sequences.room.room import RoomSequence

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
