"""Whether a recording shows what a label set is of: a room or a street."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from semslam.engine.fusion import USUAL_RANGE
from semslam.slam import SlamConfig
from sequences import Sequence

INDOORS = ("nyu13", "nyu40")  # label sets of rooms
FARTHEST_ROOM = 20.0  # metres
FASTEST_WALK = 3.0  # metres a second


def classes_of_another_scene(slam: SlamConfig, sequence: Sequence) -> str:
    """Why the classes are of rooms and the recording of a street, or the reverse, and what to do; empty if neither.

    A street shows in the range of a depth camera and in the speed of the recording's own poses.
    """
    perception = slam.perception
    far = slam.fusion.range[1] if perception.depth == "sensor" and slam.fusion.far is not None else None
    speed = median_speed(sequence)
    if perception.classes in INDOORS and (speed > FASTEST_WALK or (far or 0.0) > FARTHEST_ROOM):
        seen = f"the camera moves at {speed:.2g} m/s" if speed > FASTEST_WALK else f"depth reaches {far:.3g} m"
        return (
            f"{seen}, as on a street, and the classes {perception.classes} are of rooms; take "
            f"`slam.perception.classes` kitti6 with `weights` that know them, or `slam.perception.labels` none"
        )
    if far is not None and far <= USUAL_RANGE[1] and perception.classes == "kitti6":
        return (
            f"no depth is beyond {far:.3g} m, as in a room, and the classes kitti6 are of streets; "
            f"`slam.perception.classes` nyu13 or nyu40 are of rooms"
        )
    return ""


def median_speed(sequence: Sequence) -> float:
    """Metres a second, the median between the frames that the recording has poses of; 0 where there are none."""
    posed = [(time, T[:3, 3]) for time, T in zip(sequence.timestamps, sequence.poses or ()) if T is not None]
    steps = [(float(np.linalg.norm(b - a)), later - time) for (time, a), (later, b) in pairwise(posed)]
    return float(np.median([away / seconds for away, seconds in steps if seconds > 0] or [0.0]))
