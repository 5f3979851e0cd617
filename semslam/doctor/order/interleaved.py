"""Frames of two cameras in turn: the image jumps to and fro, and every second frame goes on where the last but one was.

No hand shakes a camera that fast through a whole recording.
"""

from __future__ import annotations

import numpy as np

from semslam.doctor.finding import Finding
from semslam.doctor.order.neighbours import LITTLE, Neighbours
from semslam.frame import evenly_spread
from sequences import Sequence

PLACES, FEWEST = 12, 6  # three frames each, that are looked at; and that must tell
FIRST = 4  # places after which no more are looked at, where none of them alternates
MOST = 0.8  # of the places
TO_AND_FRO = 3.0  # pixels of an image 160 wide between a step and the next, at least ...
BESIDE_WAY = 2.0  # ... and times the way of both together
ALIKE = 0.5  # of the points: what frames of one camera have in common, where those of two have little


def interleaved(sequence: Sequence) -> list[Finding]:
    """The warning that every second frame is of another camera."""
    if sequence.grows:  # a live camera, whose frames are still to come
        return []
    neighbours, alternates = Neighbours(sequence), list[bool]()
    for first in evenly_spread(range(max(len(sequence) - 2, 0)), PLACES):
        seen = _alternates(neighbours, first)
        alternates += [] if seen is None else [seen]
        if len(alternates) == FIRST and not any(alternates):
            break
    if len(alternates) < FEWEST or np.mean(alternates) < MOST:
        return []
    what = (
        "the images jump to and fro: every second frame goes on where the last but one was, as two cameras in turn do"
    )
    remedy = "map each camera by itself, with its intrinsics (--every 2, and --start 1 --every 2)"
    return [Finding("warning", what, remedy)]


def _alternates(neighbours: Neighbours, first: int) -> bool | None:
    """Whether the image jumps away in the next frame and comes back in the one after; None where nothing tells."""
    away, back, on = (neighbours.between(first + a, first + b) for a, b in ((0, 1), (1, 2), (0, 2)))
    if away is None or back is None or on is None:
        return None
    if max(away.share, back.share) < LITTLE:
        return on.share > ALIKE
    apart = float(np.linalg.norm(away.moved - back.moved))
    way = float(np.linalg.norm(away.moved + back.moved))
    return apart > max(TO_AND_FRO, BESIDE_WAY * way)
