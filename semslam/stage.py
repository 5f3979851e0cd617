"""The contract of a stage: what it keeps between two frames, and what it is told."""

from __future__ import annotations

import numpy as np

from semslam.frame import Tracking
from semslam.trajectory import Correction


class Stage:
    """A part of the system that lives through all frames. This base keeps nothing and ignores what it is told.

    Perception, corrections of depth, tracking, fusion and loop closure inherit from it, and override what concerns
    them; an object of this class itself stands for a part that needs none of it.
    """

    def state(self) -> dict[str, np.ndarray]:
        """What must be kept to go on later, bit for bit, as if there had been no break; for `restore`."""
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`; ValueError where it does not fit this stage."""

    def tracked(self, tracking: Tracking) -> None:
        """The pose of the present frame is found, or lost; called once a frame, after tracking."""

    def world_moved(self, correction: Correction) -> None:
        """The map was deformed by a closed loop: whatever is kept in world coordinates moves along."""


def stage_of(part: object) -> Stage:
    """The part as a stage; a plain function, or None, keeps nothing and is told nothing."""
    return part if isinstance(part, Stage) else Stage()
