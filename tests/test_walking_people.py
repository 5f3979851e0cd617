"""What was there for a moment, and was never looked at again, does not stay in the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from semslam.frame import Frame
from semslam.perception import PerceptionConfig
from semslam.runs.run import Run
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


def _map_of(frames: list[Frame]) -> Run:
    run = Run.__new__(Run)
    run.slam = Slam(ROOM.camera, SlamConfig(PerceptionConfig(labels="none")))
    for index, frame in enumerate(frames):
        run.slam.step(replace(frame, index=index))
    return run


def _of_the_person(run: Run) -> np.ndarray:
    """Which surfels have the person's colour, which nothing in the room has."""
    return np.abs(run.slam.cloud().colors.astype(int) - RED).max(axis=1) < 30


def test_a_person_who_walked_by_before_the_camera_turned_away_leaves_nothing() -> None:
    before, elsewhere = [ROOM[i] for i in range(12)], [ROOM[i] for i in range(150, 162)]
    passing = [_walked_past(12 + i, 32 * i) for i in range(5)]
    run = _map_of([*before, *passing, *elsewhere])
    person = _of_the_person(run)
    cloud = run.slam.cloud()
    sound = cloud.positions[cloud.last_seen - cloud.first_seen >= 4]
    assert person.sum() > 1000
    run.remove_passing()
    left = _of_the_person(run)
    assert left.sum() < 0.01 * person.sum()
    apart, _ = cKDTree(run.slam.cloud().positions).query(sound)
    assert len(sound) > 0.6 * len(cloud) and apart.max() == 0
    kept = len(run.slam.surfels)
    run.remove_passing()  # as an interrupted run that goes on when all frames are done
    assert len(run.slam.surfels) == kept


@pytest.mark.parametrize("count", [1, 3])
def test_a_recording_of_few_images_keeps_what_each_of_them_saw(count: int) -> None:
    run = _map_of([ROOM[100 * i] for i in range(count)])
    seen = len(run.slam.surfels)
    run.remove_passing()
    assert len(run.slam.surfels) > 0.97 * seen
