"""A tracker through the images of a recording, and through the scenes of a video with cuts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.files.failures import is_passing_in_reading
from semslam.perception import Network, predicted
from semslam.runs.color_only.likeness import Likeness
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.visual_tracker import PredictDepth, VisualTracker
from sequences import Sequence as Recording
from sequences.prefetch import read_ahead

logger = logging.getLogger(__name__)
LONGEST = 640  # pixels: the longer side of the images that are tracked, at most
MOST_SCENES = 5  # that are tracked in search of the longest one
FEWEST = 30  # frames in a row that are worth being tracked on their own


def tracked_camera(camera: Camera) -> Camera:
    """The camera of the images that are tracked, of a recording's."""
    shrink = max(1.0, max(camera.shape) / LONGEST)
    return camera.resized(round(camera.width / shrink), round(camera.height / shrink))


def depths_by(network: Network, camera: Camera) -> PredictDepth:
    """A network's depth of images of a camera."""

    def predict_depth(index: int, color: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
        found = network(color, (camera.width, camera.height), focal)
        return found.depth, found.depth_confidence

    return predict_depth


class Followed(NamedTuple):
    """What a tracker says of N frames while it follows them; their poses are `VisualTracker.pose`."""

    found: np.ndarray  # (N,) bool, which frames have a pose
    good: np.ndarray  # (N,) bool, which poses are beyond doubt
    blank: np.ndarray  # (N,) bool, which images show nothing to hold on to
    readable: np.ndarray  # (N,) bool, which images could be read, of those that were looked at
    reason: str  # why the last frame was lost that was


def follow_images(
    tracker: VisualTracker,
    sequence: Recording,
    given: Sequence[np.ndarray | None],
    report: Callable[[], object] = lambda: None,
    start: int = 0,
) -> Followed:
    """Take a tracker through the images of a `sequences.Sequence` from frame `start` on, after which it takes no more.

    given: T_world_camera of each frame, if known. Where poses are given, tracking begins with the first frame that has
    one: those before it would begin a world of their own, which the given poses do not fit. report: called for each
    frame. OSError where the machine, not the image, is why one cannot be read: what is tracked without it stays so.
    """
    size, in_given_world = tuple(map(int, tracker.size)), any(T is not None for T in given)
    here, good, blank, readable = np.zeros((4, len(sequence)), bool)
    state, reason = "", ""

    def read(index: int) -> np.ndarray:
        color = sequence.color_of(index)
        return color if color.shape[1::-1] == size else cv2.resize(color, size, interpolation=cv2.INTER_AREA)

    for i, color in read_ahead(read, sequence.numbers(start), sequence.ahead):
        report()
        if isinstance(color, Exception) and is_passing_in_reading(color):
            raise color
        readable[i] = not isinstance(color, Exception)
        if in_given_world and given[i] is None and not tracker.map.keyframes:
            continue
        if isinstance(color, Exception):  # counted by the run
            continue
        found = tracker(i, color, given[i])
        if given[i] is None and found.state != state and (state or found.state != "good"):
            told = f": {found.reason}" if found.reason else ""
            logger.warning("frame %d: visual tracking is %s%s", sequence.number_of(i), found.state, told)
        state, reason = found.state, found.reason or reason
        here[i], good[i], blank[i] = found.state != "lost", found.state == "good", found.blank
    tracker.close()
    return Followed(here, good, blank, readable, reason)


class Scene(NamedTuple):
    """What a tracker found of one scene of a video."""

    tracker: VisualTracker
    followed: Followed  # blank: of all frames, also those that other scenes were looked for in
    images: list[Likeness]  # of the keyframes


def longest_scene(
    sequence: Recording,
    network: Network,
    config: VisualConfig | None,
    report: Callable[[], object],
    folder: Path | None,
) -> Scene:
    """The scene of a `sequences.Sequence` in which a tracker found most frames.

    Frames that are lost to the first tracker may show another scene, after a cut in the video; where they are more in a
    row than any tracker has found, one of their own follows the video from there. After one that soon loses them, as in
    a fade, the next begins later: by twice as much each time, but at most by half of the frames. report: called for
    each frame, once.
    """
    camera, numbers = tracked_camera(sequence.camera), sequence.origin[1]
    best: Scene | None = None
    unknown, blank = np.ones(len(sequence), bool), np.zeros(len(sequence), bool)
    start, count, skip = 0, len(sequence), FEWEST // 2
    for attempt in range(MOST_SCENES):
        if attempt:
            last = numbers[start + count - 1]
            logger.warning("frames %d to %d may show another scene: tracked on their own", numbers[start], last)
        depths = _LookingDepths(network, camera, sequence)
        tracker = VisualTracker(camera, depths, config, sequence.camera.focal_known, folder)
        reported = (lambda: None) if attempt else report
        followed = follow_images(tracker, sequence, [None] * len(sequence), reported, start)
        if best is None or followed.found.sum() > best.followed.found.sum():
            best = Scene(tracker, followed, depths.images)
        blank |= followed.blank
        unknown &= ~(followed.found | blank)
        begun = np.flatnonzero(followed.found)
        first = begun[0] if len(begun) else len(sequence)
        unknown[start:first] = False  # nothing to hold on to
        if len(begun) < FEWEST:
            unknown[first : first + max(len(begun), min(skip, count // 2))] = False
            skip *= 2
        start, count = longest_stretch(unknown)
        if count <= best.followed.found.sum() or count < FEWEST:
            break
    assert best is not None
    return best._replace(followed=best.followed._replace(blank=blank))


class _LookingDepths:
    """A network's depth of the images of a `sequences.Sequence`, and what those that it was shown are like."""

    def __init__(self, network: Network, camera: Camera, sequence: Recording) -> None:
        """camera: of the images that are tracked."""
        self.network, self.size, self.sequence = network, (camera.width, camera.height), sequence
        self.images: list[Likeness] = []

    def __call__(self, index: int, color: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
        recorded = self.sequence.recorded_image(index)
        self.images.append(Likeness.of(color if recorded is None else recorded.color))
        found = predicted(self.network, color, self.size, focal, recorded)
        return found.depth, found.depth_confidence


def longest_stretch(mask: np.ndarray) -> tuple[int, int]:
    """Where the longest run of True in a mask (N,) begins, and its length; 0, 0 where there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    if len(starts) == 0:
        return 0, 0
    longest = int(np.argmax(lengths))
    return int(starts[longest]), int(lengths[longest])
