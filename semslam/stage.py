"""The contract of a stage: what it keeps between two frames, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from semslam.frame import Tracking
from semslam.trajectory import Correction

Layout = Mapping[str, tuple[Any, tuple[int | str, ...]]]  # name of an array -> its dtype and shape


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


def check_state(state: Mapping[str, np.ndarray], layout: Layout) -> None:
    """Raise ValueError unless a saved state has the arrays of a layout.

    A size that is a name must be the same wherever it stands. Compiled loops do not check bounds: arrays that do not
    fit together would end the process instead of raising an error.
    """
    sizes: dict[str, int] = {}
    for name, (dtype, shape) in layout.items():
        if name not in state:
            raise ValueError(f"the saved state lacks the array {name}")
        array = state[name]
        for size, length in zip(shape, array.shape):
            if isinstance(size, str):
                sizes.setdefault(size, length)
        expected = tuple(sizes.get(size, -1) if isinstance(size, str) else size for size in shape)
        if array.dtype != dtype or array.shape != expected:
            raise ValueError(
                f"the saved array {name} is {array.dtype} {array.shape}, expected {np.dtype(dtype)} {expected}"
            )


def prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a part keeps, as arrays of the whole that it belongs to."""
    return {f"{prefix}{name}": array for name, array in arrays.items()}


def under_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a part keeps, of the whole that it belongs to: the opposite of `prefixed`."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def stage_of(part: object) -> Stage:
    """The part as a stage; a plain function, or None, keeps nothing and is told nothing."""
    return part if isinstance(part, Stage) else Stage()
