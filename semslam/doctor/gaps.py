"""Frames that are missing: numbers left out of names, pauses, and neighbours that show little in common."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np

from semslam.atomic import raise_passing
from semslam.doctor.finding import Finding
from semslam.doctor.flow import found_again
from sequences import Sequence
from sequences.pose_pairing import numbers_of_names

WIDTH = 160  # pixels: images are compared this small
POINTS = 120  # followed from one frame to the next, at most
FEWEST_POINTS = 12
LITTLE = 0.3  # of the points: what is found by chance; 0.7 to 1 are found in the next frame of real recordings
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
    what = f"{_counted(at.size, 'gap')} in the numbers of the images; the longest, {missing}"
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
        f"{_counted(at.size, 'gap')} in time; the longest, {steps[longest]:.2f} s, after frame "
        f"{sequence.number_of(longest)} (usually {1000 * usual:.0f} ms)"
    )
    return [Finding("warning", what, REMEDY)]


def _in_images(sequence: Sequence) -> list[Finding]:
    """Neighbours that show little in common, though the frames around them do."""
    shares = _Shares(sequence)
    stride = -(-len(sequence) // COMPARED)
    coarse = list(range(0, len(sequence), stride))
    compared = coarse[:-1]  # with the next
    little = [i for i, j in pairwise(coarse) if shares.between(i, j) < LITTLE]
    if stride > 1:
        compared = [k for i in little[:REFINED] for k in range(i, min(i + stride, len(sequence) - 1))]
        little = [k for k in compared if shares.between(k, k + 1) < LITTLE]
    # a single image that is blurred or dark is no gap: those before and after it have much in common
    breaks = _together(
        sequence, (i for i in little if shares.between(max(i - 1, 0), min(i + 2, len(sequence) - 1)) < LITTLE)
    )
    if not breaks.size:
        return []
    if breaks.size > max(2, OFTEN * len(coarse)):
        what = f"{breaks.size} of {len(compared)} neighbouring frames show little in common: they are far apart"
        return [Finding("warning", what, "tracking needs frames that overlap: record more a second, or move slower")]
    first = int(breaks[0])
    what = (
        f"{_counted(breaks.size, 'gap')} in what the images show; the first after frame {sequence.number_of(first)} "
        f"({sequence.name_of(first)})"
    )
    return [Finding("warning", what, REMEDY)]


class _Shares:
    """How much two frames have in common: the share of one's points that are found in the other."""

    def __init__(self, sequence: Sequence) -> None:
        self._sequence = sequence
        self._grey = lru_cache(maxsize=8)(self._read)

    def between(self, one: int, other: int) -> float:
        """In 0..1; 1 where an image cannot be read or has too little texture to tell."""
        first, second = self._grey(one), self._grey(other)
        if first is None or second is None:
            return 1.0
        corners = cv2.goodFeaturesToTrack(first, POINTS, 0.01, 5)
        if corners is None or len(corners) < FEWEST_POINTS:
            return 1.0
        return float(found_again(first, second, corners.reshape(-1, 2), 15)[1].mean())

    def _read(self, index: int) -> np.ndarray | None:
        try:
            color = self._sequence.color_of(index)
        except (ValueError, OSError) as problem:
            raise_passing(problem)
            return None
        height = max(1, round(WIDTH * color.shape[0] / color.shape[1]))
        return cv2.resize(cv2.cvtColor(color, cv2.COLOR_RGB2GRAY), (WIDTH, height), interpolation=cv2.INTER_AREA)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"
