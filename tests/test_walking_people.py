"""What was there for a moment, and is seen through at other times, does not stay in the map."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semslam.frame import Frame
from semslam.perception import PerceptionConfig
from semslam.runs.finished.passing import remove_passing, seen_through
from semslam.slam import Slam, SlamConfig
from sequences import open_sequence

ROOM = open_sequence("room:frames=400,width=160,height=120")
PERSON, RED = 0.5, (250, 0, 20)  # metres from the camera; its colour


def _walked_past(number: int, place: int) -> Frame:
    """A frame of the room with somebody close to the camera, who covers a fifth of the image and goes on."""
    frame = ROOM[number]
    assert frame.depth is not None
    color, depth = frame.color.copy(), frame.depth.copy()
    color[:, place : place + 32], depth[:, place : place + 32] = RED, PERSON
    return replace(frame, color=color, depth=depth)


def _run_of(frames: list[Frame]) -> Any:
    """What of a run is asked for, after these frames."""
    slam = Slam(ROOM.camera, SlamConfig(PerceptionConfig(labels="none")))
    for index, frame in enumerate(frames):
        slam.step(replace(frame, index=index))
    poses = {index: frame.T_world_camera for index, frame in enumerate(frames)}
    recording = SimpleNamespace(try_read=lambda index: frames[index])
    progress = SimpleNamespace(fused_poses=lambda: poses)
    return SimpleNamespace(slam=slam, frames=recording, progress=progress, changed=lambda: None)


def _of_the_person(run: Any) -> int:
    """How many surfels have the person's colour, which nothing in the room has."""
    return int((np.abs(run.slam.cloud().colors.astype(int) - RED).max(axis=1) < 30).sum())


def test_a_person_who_walked_by_before_the_camera_turned_away_leaves_nothing() -> None:
    before, elsewhere = [ROOM[i] for i in range(12)], [ROOM[i] for i in range(150, 162)]
    run = _run_of([*before, *[_walked_past(12 + i, 32 * i) for i in range(5)], *elsewhere])
    person, there = _of_the_person(run), len(run.slam.surfels)
    assert person > 1000
    removed = remove_passing(run)
    assert _of_the_person(run) < 0.1 * person
    assert removed < 1.3 * person and len(run.slam.surfels) <= there - removed
    assert remove_passing(run) == 0  # as where a run that was broken off at its end goes on


@pytest.mark.parametrize("step", [2, 10, 100])
def test_what_few_frames_saw_stays_where_nothing_is_seen_behind_it(step: int) -> None:
    run = _run_of([ROOM[i] for i in range(0, 400, step)][:40])
    there = len(run.slam.surfels)
    assert remove_passing(run) < 0.01 * there


def test_a_point_is_seen_through_where_the_depth_of_its_pixel_is_clearly_farther() -> None:
    camera, depth = ROOM.camera, np.full(ROOM.camera.shape, 2.0, np.float32)
    depth[: camera.height // 2] = 0  # nothing is measured above
    below, above, behind_the_camera = (0.0, 0.1), (0.0, -0.1), (0.0, 0.1)
    points = np.array([[*below, 1.5], [*below, 1.95], [*below, 2.5], [*above, 1.5], [*behind_the_camera, -1.5]])
    assert seen_through(points, camera, np.eye(4), depth).tolist() == [True, False, False, False, False]
