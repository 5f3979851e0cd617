"""What was found of the poses before a run began, kept in its folder for a run that goes on.

A kept value is a dataclass of arrays, with one row a frame or one for all, and of numbers; None stays what it is by
default.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from semslam.runs.storage.arrays import load_arrays, parts_of, save_arrays

Kept = TypeVar("Kept")


def save_kept(path: Path, value: Any, settings: str) -> None:
    """Write a dataclass, and the settings that it was made with."""
    arrays = {name: np.asarray(held) for name, held in vars(value).items() if held is not None}
    save_arrays(path, parts_of(arrays | {"settings": np.array(settings)}))


def load_kept(path: Path, kind: type[Kept], frames: int, settings: str | None = None) -> Kept | None:
    """What `save_kept` wrote of a recording of so many frames.

    None where there is nothing, or of another recording or with other settings than these, if there are any.
    """
    try:
        arrays = load_arrays(path)
        made_with = str(arrays.pop("settings"))
        found = kind(**{name: array if array.ndim else array.item() for name, array in arrays.items()})
    except (ValueError, OSError, KeyError, TypeError):  # none, damaged or of another version: it is made again
        return None
    of_frames = all(len(array) in (1, frames) for array in arrays.values() if array.ndim)
    return found if of_frames and settings in (None, made_with) else None
