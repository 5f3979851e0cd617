"""A depth camera that hangs: the same depth image again and again, while colour goes on.

Depth that is slower than colour repeats as well, where images are paired by time: that often, and no more often.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import cv2
import numpy as np

from semslam.doctor.finding import Finding
from semslam.frame import Frame
from semslam.stage import Stage

STRIDE = 4  # pixels each way: readings that are compared; those of sensors are noisy, and never all the same
SIZE = (40, 30)  # pixels: colour is compared this small, where its noise is averaged out
CHANGED = 2.0  # grey levels of 255, on average: colour of another view
FEWEST_GROUPS = 3  # of frames with one depth image, that tell how often each is repeated
TIMES_USUAL = 2  # as often as is usual, or more often than that at the start ...
REMEMBERED = 1000  # groups, the latest ones
MOST_AT_START = 10  # ... where nothing tells what is usual: depth of a tenth of colour's rate


class DepthRepeats(Stage):
    """Sees the frames of a recording one after another."""

    def __init__(self) -> None:
        self._checksum = 0  # of the latest depth image
        self._color = np.zeros((*SIZE[::-1], 3), np.uint8)  # of the frame in which it was new; small once needed
        self._sizes: list[int] = []  # of the groups of frames with one depth image; the last one is open

    def see(self, frame: Frame) -> bool:
        """Whether the depth of the next frame is that of an earlier moment, because the depth camera hangs."""
        if frame.depth is None or not frame.depth.any():
            return False
        checksum = zlib.crc32(frame.depth[::STRIDE, ::STRIDE].tobytes())
        if not self._sizes or checksum != self._checksum:
            self._checksum, self._color = checksum, frame.color
            self._sizes = [*self._sizes[1 - REMEMBERED :], 1]
            return False
        self._color = _small(self._color)
        change = np.abs(_small_grey(frame.color) - _small_grey(self._color)).mean()
        if change < CHANGED:  # the camera rests, or colour hangs as well
            return False
        self._sizes[-1] += 1
        return self._sizes[-1] > self._most

    @property
    def _most(self) -> float:
        """Frames that one depth image may have."""
        closed = self._sizes[:-1]
        return TIMES_USUAL * float(np.median(closed)) if len(closed) >= FEWEST_GROUPS else MOST_AT_START

    def state(self) -> dict[str, np.ndarray]:
        """What must be kept to go on later; for `restore`."""
        small = _small(self._color)
        return {"checksum": np.array(self._checksum), "color": small, "sizes": np.array(self._sizes, np.int64)}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._checksum, self._color = int(state["checksum"]), state["color"]
        self._sizes = state["sizes"].tolist()


def in_words(frames: Sequence[int]) -> str:
    """What is wrong with frames whose depth is that of an earlier moment."""
    where = f"{len(frames)} frames, from {frames[0]} to {frames[-1]}," if len(frames) > 1 else f"frame {frames[0]}"
    return f"the depth of {where} is the image of an earlier frame, while colour changes: the depth camera hung"


def hanging(frames: Sequence[Frame]) -> list[Finding]:
    """The warning of frames of a recording, evenly spread, whose depth is that of an earlier moment."""
    repeats = DepthRepeats()
    found = [frame.number for frame in frames if repeats.see(frame)]
    if not found:
        return []
    remedy = "runs do not fuse them; record again, if the map lacks what they show"
    return [Finding("warning", in_words(found), remedy)]


def _small(color: np.ndarray) -> np.ndarray:
    """(30, 40, 3) of RGB (H, W, 3) uint8; of one that is small already, itself."""
    return cv2.resize(color, SIZE, interpolation=cv2.INTER_AREA)


def _small_grey(color: np.ndarray) -> np.ndarray:
    """(30, 40) float32 of RGB (H, W, 3) uint8."""
    return cv2.cvtColor(_small(color), cv2.COLOR_RGB2GRAY).astype(np.float32)
