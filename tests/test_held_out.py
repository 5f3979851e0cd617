"""Frames held out are judged where their poses are known, and count for nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from semslam.cloud import CloudInParts
from semslam.engine.surfels import SurfelMap
from semslam.runs.finished.held_out import _Errors, judged_by_held_out
from semslam.runs.progress import Progress
from sequences.room.room import RoomSequence


def test_a_frame_held_out_while_the_camera_was_lost_is_left_out_and_counted():
    recording = RoomSequence(frames=12, width=32, height=24)
    tracked = [0, 2, 10]  # and frames 1, 6 and 11 are held out
    progress = Progress(
        next_index=12,
        indices=tracked,
        timestamps=[recording.timestamps[i] for i in tracked],
        poses=[recording.poses[i] for i in tracked],
        submaps=[0] * len(tracked),
        held_out=[1, 6, 11],
    )
    slam = SimpleNamespace(track=None, fusion=SimpleNamespace(config=SimpleNamespace(range=(0.3, 5.0))))
    empty = CloudInParts.of(SurfelMap(0).cloud(None))
    run = SimpleNamespace(progress=progress, sequence=recording, frames=recording, slam=slam, clouds=lambda: empty)
    figures = judged_by_held_out(run)
    assert figures["held_out_unposed"] == 2 and figures["held_out_coverage"] == 0


def test_the_median_of_errors_takes_no_memory_for_each_of_them():
    errors, rng = _Errors(), np.random.default_rng(0)
    frames = [rng.gamma(2.0, 0.01, 4000).astype(np.float32) for _ in range(5)] + [np.zeros(100, np.float32)]
    for frame in frames:
        errors.add(frame)
    assert errors.count == 20100
    assert errors.median() == pytest.approx(np.median(np.concatenate(frames)), rel=2e-3)
    assert sum(value.nbytes for value in vars(errors).values()) < 3e6
    assert np.isnan(_Errors().median())


def test_frames_that_are_held_out_do_not_make_a_run_faster():
    progress = Progress(next_index=12, held_out=[1, 3, 5], corrupt=[2], seconds=2.0)
    assert progress.frames_per_second() == pytest.approx(4)
    assert progress.frames_per_second(besides=2.0) == pytest.approx(2)
    assert np.isnan(Progress().frames_per_second())
