"""A camera that hangs: the same depth image again and again while colour goes on, or the same colour image while depth
goes on.

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
# Of the depth of a patch, the median: depth of another view. Sensors at rest have 0.001; with noise that is common to a
# patch, as that of a stereo camera, 0.005
DEPTH_CHANGED = 0.01
PATCH, MOST_CHANGE, FEWEST_PATCHES = 4, 0.05, 20  # such pixels each way; more is an edge that moves; patches
FEWEST_GROUPS = 3  # of frames with one depth image, that tell how often each is repeated
TIMES_USUAL = 2  # as often as is usual, or more often than that at the start ...
REMEMBERED = 6  # groups, the latest ones, with the open one: a camera may become slower, as colour does in the dark
MOST_AT_START = 10  # ... where nothing tells what is usual: depth of a tenth of colour's rate


class _Groups:
    """How many frames each image of a camera had so far."""

    def __init__(self) -> None:
        self.sizes: list[int] = []  # of the groups of frames with one image; the last one is open

    def begin(self) -> None:
        self.sizes = [*self.sizes[1 - REMEMBERED :], 1]

    def add(self) -> bool:
        """Whether one more frame has the image too often."""
        self.sizes[-1] += 1
        closed = self.sizes[:-1]
        usual = TIMES_USUAL * float(np.median(closed)) if len(closed) >= FEWEST_GROUPS else MOST_AT_START
        return self.sizes[-1] > usual


class ColorRepeats(Stage):
    """Sees the frames of a recording one after another, and tells whose colour is of an earlier moment."""

    def __init__(self) -> None:
        self._checksum = 0  # of the latest colour image
        self._depth = np.zeros((0, 0), np.float32)  # of the frame in which it was new, thinned
        self._groups = _Groups()

    def see(self, frame: Frame) -> bool:
        """Whether the colour of the next frame is that of an earlier moment, because the colour camera hangs."""
        if frame.depth is None:
            return False
        color, depth = frame.color[::STRIDE, ::STRIDE], frame.depth[::STRIDE, ::STRIDE]
        checksum = zlib.crc32(color.tobytes())
        differs = not self._groups.sizes or checksum != self._checksum or depth.shape != self._depth.shape
        if differs or color.std() < CHANGED:  # without light, all images are black
            self._checksum, self._depth = checksum, depth.copy()
            self._groups.begin()
            return False
        often = self._groups.add()
        return often and _depth_change(self._depth, depth) > DEPTH_CHANGED

    def state(self) -> dict[str, np.ndarray]:
        """What must be kept to go on later; for `restore`."""
        sizes = np.array(self._groups.sizes, np.int64)
        return {"checksum": np.array(self._checksum), "depth": self._depth, "sizes": sizes}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._checksum, self._depth = int(state["checksum"]), state["depth"]
        self._groups.sizes = state["sizes"].tolist()


class DepthRepeats(Stage):
    """Sees the frames of a recording one after another, and tells whose depth is of an earlier moment."""

    def __init__(self) -> None:
        self._checksum = 0  # of the latest depth image
        self._color = np.zeros((*SIZE[::-1], 3), np.uint8)  # of the frame in which it was new; small once needed
        self._groups = _Groups()

    def see(self, frame: Frame) -> bool:
        """Whether the depth of the next frame is that of an earlier moment, because the depth camera hangs."""
        if frame.depth is None or not frame.depth.any():
            return False
        checksum = zlib.crc32(frame.depth[::STRIDE, ::STRIDE].tobytes())
        if not self._groups.sizes or checksum != self._checksum:
            self._checksum, self._color = checksum, frame.color
            self._groups.begin()
            return False
        self._color = _small(self._color)
        change = np.abs(_small_grey(frame.color) - _small_grey(self._color)).mean()
        return change >= CHANGED and self._groups.add()  # else the camera rests, or colour hangs as well

    def state(self) -> dict[str, np.ndarray]:
        """What must be kept to go on later; for `restore`."""
        sizes = np.array(self._groups.sizes, np.int64)
        return {"checksum": np.array(self._checksum), "color": _small(self._color), "sizes": sizes}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a `state`."""
        self._checksum, self._color = int(state["checksum"]), state["color"]
        self._groups.sizes = state["sizes"].tolist()


def in_words(frames: Sequence[int], camera: str = "depth") -> str:
    """What is wrong with frames whose depth, or colour, is that of an earlier moment."""
    other = "colour" if camera == "depth" else "depth"
    where = f"{len(frames)} frames, from {frames[0]} to {frames[-1]}," if len(frames) > 1 else f"frame {frames[0]}"
    return f"the {camera} of {where} is the image of an earlier frame, while {other} changes: the {camera} camera hung"


def hanging(frames: Sequence[Frame]) -> list[Finding]:
    """The warnings of frames of a recording, evenly spread, whose depth or colour is that of an earlier moment."""
    findings = []
    for camera, repeats in ("depth", DepthRepeats()), ("colour", ColorRepeats()):
        if found := [frame.number for frame in frames if repeats.see(frame)]:
            remedy = "runs do not fuse them; record again, if the map lacks what they show"
            findings.append(Finding("warning", in_words(found, camera), remedy))
    return findings


def _depth_change(before: np.ndarray, now: np.ndarray) -> float:
    """Share by which the depth of a patch has changed, the median; 0 where too few patches have depth in both images.

    The mean of a patch is hardly noisy.
    """
    both = (before > 0) & (now > 0)
    change = np.where(both, now - before, 0) / np.where(both, before, 1)
    side = min(PATCH, max(1, min(change.shape) // 6))
    rows, columns = change.shape[0] // side, change.shape[1] // side
    patches = [
        image[: rows * side, : columns * side].reshape(rows, side, columns, side).sum(axis=(1, 3))
        for image in (np.clip(change, -MOST_CHANGE, MOST_CHANGE), both)
    ]
    known = patches[1] >= side * side / 2
    return float(np.median(np.abs(patches[0][known] / patches[1][known]))) if known.sum() >= FEWEST_PATCHES else 0.0


def _small(color: np.ndarray) -> np.ndarray:
    """(30, 40, 3) of RGB (H, W, 3) uint8; of one that is small already, itself."""
    return cv2.resize(color, SIZE, interpolation=cv2.INTER_AREA)


def _small_grey(color: np.ndarray) -> np.ndarray:
    """(30, 40) float32 of RGB (H, W, 3) uint8."""
    return cv2.cvtColor(_small(color), cv2.COLOR_RGB2GRAY).astype(np.float32)
