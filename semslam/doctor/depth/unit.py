"""Whether depth was read in the wrong unit, judged without poses: by a network's depth, or by the size of rooms."""

from __future__ import annotations

import numpy as np

from semslam.doctor.depth.readings import CONTRADICTED, DOUBTFUL, IN_ROOMS, doubt_of_unit
from semslam.doctor.scene import FASTEST_WALK, median_speed
from semslam.frame import evenly_spread
from semslam.perception import Network
from sequences import Sequence

FRAMES = 3  # that are looked at
BEYOND_DOUBT = (0.7, 5.0)  # metres: a median in between is a room's


def doubtful_depth_unit(sequence: Sequence, network: Network | None) -> str:
    """Why depth seems to be in another unit than it was read in, and what to do; empty where nothing says so.

    network: predicts metric depth of the same images; without one only depths that no room has are doubted.
    """
    if not sequence.has_depth or median_speed(sequence) > FASTEST_WALK:  # outdoors all depths are usual
        return ""
    read, expected = [], []
    for index in evenly_spread(range(len(sequence)), FRAMES):
        frame = sequence.try_read(index)
        if frame is None or frame.depth is None or not (valid := frame.depth > 0).any():
            continue
        read.append(float(np.median(frame.depth[valid])))
        if network is not None and not BEYOND_DOUBT[0] < read[-1] < BEYOND_DOUBT[1]:
            height, width = frame.depth.shape
            predicted = network(frame.color, (width, height), frame.camera.fx).depth
            expected.append(float(np.median(predicted[valid])))
    if not read:
        return ""
    median = float(np.median(read))
    if len(expected) == len(read):
        likely = float(np.median(expected))
        if 1 / CONTRADICTED < likely / median < CONTRADICTED:
            return ""
        said = f"the median depth is {median:.2g} m, and a network expects {likely:.2g} m of the same images"
    elif DOUBTFUL[0] < median < DOUBTFUL[1]:
        return ""
    else:
        likely = IN_ROOMS
        said = f"the median depth is {median:.2g} m, and rooms have 1 to 4 m"
    doubt = doubt_of_unit(median, likely)
    return doubt and f"{said}; {doubt}"
