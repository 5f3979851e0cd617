"""Frames that are missing: numbers left out of names, pauses, and neighbours that show little in common."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from semslam.doctor.finding import Finding, counted
from semslam.doctor.order.neighbours import LITTLE, Neighbours
from sequences import Sequence
from sequences.pose_pairing import numbers_of_names

COMPARED = 200  # frames at most; of longer recordings every n-th, and where these differ much all between them
REFINED = 20  # places at most where that is done
OFTEN = 0.05  # of the frames: so many breaks are no gaps, but the frames are too far apart
LONG = 8  # times the usual step of numbers or times, that tracking may not cross

REMEDY = (
    "tracking may be lost there: map the parts apart (--start, --frames) and join them (semslam merge), or record again"
)


def gaps(sequence: Sequence) -> list[Finding]:
    """What is missing between the frames, by the first of names, times and images that tells it."""
    if len(sequence) < 3:
        return []
    return _in_numbers(sequence) or _in_times(sequence) or _in_images(sequence)


def _together(sequence: Sequence, at: Iterable[int]) -> np.ndarray:
    """Of the frames at which something changes towards the next one, those whose next one is of the same recording.

    Recordings that were made apart follow each other with a pause.
    """
    kept = [int(i) for i in at if sequence.part_of(int(i)) == sequence.part_of(int(i) + 1)]
    return np.array(kept, np.int64)


def _in_numbers(sequence: Sequence) -> list[Finding]:
    """Gaps in the numbers of images; none where the names hold times, or no number that counts frames."""
    names = [sequence.name_of(i) for i in range(len(sequence))]
    for numbers in numbers_of_names(names):
        steps = np.diff(numbers)
        usual = float(np.median(steps))
        if (steps > 0).all() and 0 < usual < 1000:  # more: a time
            break
    else:
        return []
    at = _together(sequence, np.flatnonzero(steps > LONG * usual))
    if not at.size or at.size > OFTEN * len(steps):
        return []
    longest = at[np.argmax(steps[at])]
    missing = f"{round(steps[longest] / usual) - 1} frames, after {names[longest]}"
    what = f"{counted(at.size, 'gap')} in the numbers of the images; the longest, {missing}"
    return [Finding("warning", what, REMEDY)]


def _in_times(sequence: Sequence) -> list[Finding]:
    steps = np.diff(sequence.timestamps)
    if len(steps) < 2 or (steps <= 0).any():
        return []
    usual = float(np.median(steps))
    at = _together(sequence, np.flatnonzero(steps > max(0.5, LONG * usual)))
    if not at.size:
        return []
    longest = at[np.argmax(steps[at])]
    what = (
        f"{counted(at.size, 'gap')} in time; the longest, {steps[longest]:.2f} s, after frame "
        f"{sequence.number_of(longest)} (usually {1000 * usual:.0f} ms)"
    )
    return [Finding("warning", what, REMEDY)]


def _in_images(sequence: Sequence) -> list[Finding]:
    """Neighbours that show little in common, though the frames around them do."""
    neighbours = Neighbours(sequence)
    stride = -(-len(sequence) // COMPARED)
    coarse = list(range(0, len(sequence), stride))
    compared = coarse[:-1]  # with the next
    little = [i for i, j in pairwise(coarse) if _share(neighbours, i, j) < LITTLE]
    if stride > 1:
        compared = [k for i in little[:REFINED] for k in range(i, min(i + stride, len(sequence) - 1))]
        little = [k for k in compared if _share(neighbours, k, k + 1) < LITTLE]
    # a single image that is blurred or dark is no gap: those before and after it have much in common
    breaks = _together(
        sequence, (i for i in little if _share(neighbours, max(i - 1, 0), min(i + 2, len(sequence) - 1)) < LITTLE)
    )
    if breaks.size > max(2, OFTEN * len(coarse)):
        what = f"{breaks.size} of {len(compared)} neighbouring frames show little in common: they are far apart"
        return [Finding("warning", what, "tracking needs frames that overlap: record more a second, or move slower")]
    breaks = breaks[(breaks > 0) & (breaks < len(sequence) - 2)]  # the first and the last image may be such ones
    if not breaks.size:
        return []
    first = int(breaks[0])
    what = (
        f"{counted(breaks.size, 'gap')} in what the images show; the first after frame {sequence.number_of(first)} "
        f"({sequence.name_of(first)})"
    )
    return [Finding("warning", what, REMEDY)]


def _share(neighbours: Neighbours, one: int, other: int) -> float:
    """Of a frame's points that are found in another one; 1 where nothing tells."""
    common = neighbours.between(one, other)
    return 1.0 if common is None else common.share
