"""Frames taken through tracking and fusion, and how far off their poses are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semslam.frame import Frame, Observation, Step
from semslam.loops.loop_closure import LoopCloser
from semslam.slam import Slam
from semslam.tracking.tracker import Tracker

SIZE = {"width": 320, "height": 240}


def tracked(frames: list[Frame], loops: bool = False) -> tuple[list[Step], Slam]:
    tracker = Tracker()
    slam = Slam(frames[0].camera, perceive=Observation.of, track=tracker, loops=LoopCloser(tracker) if loops else None)
    timed = [replace(f, index=i, timestamp=i / 30) for i, f in enumerate(frames)]
    return [slam.step(f if i == 0 else replace(f, T_world_camera=None)) for i, f in enumerate(timed)], slam


def errors(steps: list[Step], frames: list[Frame]) -> np.ndarray:
    """(N,) metres."""
    return np.array([
        np.linalg.norm(s.tracking.T_world_camera[:3, 3] - f.T_world_camera[:3, 3]) for s, f in zip(steps, frames)
    ])  # fmt: skip


def states(steps: list[Step]) -> list[str]:
    return [step.tracking.state for step in steps]
