"""Depth whose readings scatter far more than those of the camera's kind."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semslam.camera import SENSORS
from semslam.doctor.depth.scatter import LARGER, times_larger
from semslam.frame import Frame, Observation
from semslam.runs.reconstruct import with_noise_of
from semslam.slam import Slam, SlamConfig
from semslam.tracking.tracker import Tracker
from sequences.room.room import NOISE, RoomSequence

SIZE = {"width": 320, "height": 240}


def noisy(frame: Frame, times: float) -> Frame:
    """With independent noise so many times that of a Kinect, about."""
    assert frame.depth is not None
    base, quadratic = SENSORS["kinect"]
    sigma = times * (base + quadratic * (frame.depth - 0.4) ** 2)
    noise = np.random.default_rng(frame.index).normal(0, sigma).astype(np.float32)
    return replace(frame, depth=np.where(frame.depth > 0, frame.depth + noise, np.float32(0)))


@pytest.mark.parametrize("kind", ["kinect", "realsense", "tof"])
def test_noise_of_a_known_kind_is_not_larger(kind):
    room = RoomSequence(frames=40, noise=NOISE[kind], **SIZE)
    assert times_larger((room[i].depth for i in (0, 13, 26, 39)), *SENSORS[kind]) < LARGER


def test_how_many_times_larger_noise_is():
    room = RoomSequence(frames=40, **SIZE)
    for times in (1.0, 3.0):
        depths = (noisy(room[i], times).depth for i in (0, 20))
        assert times_larger(depths, *SENSORS["kinect"]) == pytest.approx(times, rel=0.15)
    assert times_larger([np.zeros((240, 320), np.float32)], *SENSORS["kinect"]) == 0


@pytest.mark.parametrize(("larger", "fused"), [(1.0, 0), (3.0, 9)])
def test_noisy_depth_is_fused_if_it_is_expected_to_be_noisy(larger, fused):
    frames = [noisy(frame, 3.0) for frame in RoomSequence(frames=10, **SIZE)]
    config = with_noise_of(None, SlamConfig(), larger)
    tracker = Tracker(config.tracking)
    slam = Slam(frames[0].camera, config, perceive=Observation.of, track=tracker)
    steps = [slam.step(f if i == 0 else replace(f, T_world_camera=None)) for i, f in enumerate(frames)]
    assert all(step.tracking.ok for step in steps) and sum(step.fused for step in steps[1:]) == fused
