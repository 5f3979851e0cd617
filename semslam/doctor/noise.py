"""How noisy a recording's depth is, measured by tracking its first frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from semslam.camera import SENSORS, depth_std
from semslam.perception import Perception, PerceptionConfig
from semslam.slam import Slam, SlamConfig
from semslam.tracking.tracker import Tracker
from sequences import Sequence

FRAMES = 40  # that are tracked
WIDTH = 320  # pixels that they are resized to


def depth_noise(sequence: Sequence) -> str:
    """What the first frames say of the depth camera's noise, in one line; empty where they cannot be tracked."""
    if not sequence.has_depth or len(sequence) < 5:
        return ""
    config = SlamConfig(perception=PerceptionConfig(labels="none", width=min(WIDTH, sequence.camera.width)))
    perception, tracker = Perception(config.perception, sequence.camera, None), Tracker(config.tracking)
    slam, tracked = Slam(perception.camera, config, perceive=perception, track=tracker), 0
    with _quiet("semslam.tracking"):  # that frames are lost is no matter of noise
        for index in range(min(FRAMES, len(sequence))):
            if (frame := sequence.try_read(index)) is not None and frame.depth is not None:
                tracked += slam.step(frame).tracking.ok
    if tracked < 5:
        return ""
    depths = np.array([0.5, 1.0, 2.0, 3.0])
    measured = tracker.noise.of_depth.sigma(depths)
    models = {name: depth_std(depths, *noise) for name, noise in SENSORS.items()}
    nearest = min(models, key=lambda name: float(np.abs(np.log(measured / models[name])).sum()))
    told = ", ".join(f"{1e3 * sigma:.1f} mm at {z:g} m" for z, sigma in zip(depths, measured))
    return f"depth noise, from {tracked} frames: {told}; most like sensor {nearest}"


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """The loggers below a name say errors alone."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
