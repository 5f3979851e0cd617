"""Poses of a recording from its colour images alone, before any of it is fused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.frame import evenly_spread
from semslam.perception import Network
from semslam.runs.color_only.likeness import Likeness, mostly_strange, scale_std
from semslam.runs.poses import ListedPoses
from semslam.runs.progress import NoMap
from semslam.runs.storage.arrays import load_arrays, parts_of, save_arrays
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.visual_tracker import PredictDepth, VisualTracker
from sequences.prefetch import read_ahead
from sequences.recalibrated import RecalibratedSequence

logger = logging.getLogger(__name__)
KEPT = "visual.npz"  # in a run's folder
LONGEST = 640  # pixels: the longer side of the images that are tracked, at most
NUMBERS = {"int": int, "float": float}
MOST_SCENES = 5  # that are tracked in search of the longest one
FEWEST = 30  # frames in a row that are worth being tracked on their own
RESIDUAL = 1.4  # pixels of tracked images: median of sound recordings 0.8 to 0.9; of a wobble of 6 pixels 1.9
LOOKED_AT = 7  # of frames that were lost, to say whether they show anything
LEAST_FOUND = 0.2  # of the frames: with fewer there is no map; as many in a row that are lost are named
LEAST_WAY = 0.03  # of the scene's depth; a camera that went less far shows no parallax


@dataclass(frozen=True, eq=False)
class VisualPoses:
    """What visual tracking found of each of N frames."""

    T_world_camera: np.ndarray  # (N, 4, 4) float64 metres, not finite where the camera was lost
    good: np.ndarray  # (N,) bool: sure enough to measure depth with
    scale: float  # metres in the unit that the first frame's predicted depth had
    scale_std: float  # relative standard deviation of the scale; see `sparse_map.voted_scale`, `likeness`
    keyframes: int
    depth: float  # metres: median of the landmarks'
    seconds: float  # that tracking took
    focal: float  # of the recording's images, pixels
    focal_std: float  # its relative standard deviation; 0 = it was known

    @property
    def lost(self) -> int:
        """How many frames have no pose."""
        return int(np.count_nonzero(~self.found))

    @property
    def found(self) -> np.ndarray:
        """(N,) bool: which frames have a pose."""
        return np.isfinite(self.T_world_camera[:, 0, 0])

    def save(self, path: Path, settings: str) -> None:
        """Keep it, and the settings that it was made with, so that a run that goes on need not track again."""
        arrays = {name: np.asarray(value) for name, value in vars(self).items()}
        save_arrays(path, parts_of(arrays | {"settings": np.array(settings)}))

    @staticmethod
    def load(path: Path, frames: int, settings: str | None = None) -> VisualPoses | None:
        """What `save` kept of a recording of so many frames; None where there is nothing, or of another recording or
        with other settings than these, if there are any."""
        try:
            arrays = load_arrays(path)
            if settings is not None and str(arrays["settings"]) != settings:
                return None
            numbers = {f.name: f.type for f in fields(VisualPoses) if f.type in NUMBERS}
            kept = VisualPoses(
                T_world_camera=arrays["T_world_camera"],
                good=arrays["good"],
                **{name: NUMBERS[kind](arrays[name]) for name, kind in numbers.items()},
            )
        except (ValueError, OSError, KeyError, TypeError):  # none, damaged or of another version: it is made again
            return None
        return kept if kept.T_world_camera.shape == (frames, 4, 4) and kept.good.shape == (frames,) else None

    def figures(self) -> dict[str, Any]:
        """For metrics.json: what the poses are worth."""
        return {
            "tracking": "colour alone",
            "visual_keyframes": self.keyframes,
            "scale_std": self.scale_std,
            "tracking_seconds": self.seconds,
            "focal_pixels": self.focal,
            "focal_std": self.focal_std,
        }

    def calibrated(self, sequence: Any) -> Any:
        """The `sequences.Sequence` that was tracked, with the focal length that was found where none was known."""
        camera: Camera = sequence.camera
        return sequence if camera.focal_known else RecalibratedSequence(sequence, camera.with_focal(self.focal))

    def scaled(self, factor: float, std: float) -> VisualPoses:
        """The same with all lengths times a factor, from the first pose on; std: relative, of the scale from now on."""
        first = self.T_world_camera[np.argmax(self.found)]
        T = self.T_world_camera.copy()
        T[:, :3, 3] = first[:3, 3] + factor * (T[:, :3, 3] - first[:3, 3])
        return replace(self, T_world_camera=T, scale=factor * self.scale, scale_std=std, depth=factor * self.depth)

    def given(self) -> ListedPoses:
        """As the poses of a run; frames that are not good enough are lost to it."""
        return ListedPoses([T if good else None for T, good in zip(self.T_world_camera, self.good)], "visual tracking")


def tracked_camera(camera: Camera) -> Camera:
    """The camera of the images that are tracked, of a recording's."""
    shrink = max(1.0, max(camera.shape) / LONGEST)
    return camera.resized(round(camera.width / shrink), round(camera.height / shrink))


def depths_by(network: Network, camera: Camera, seen: list[Likeness] | None = None) -> PredictDepth:
    """A network's depth of images of a camera. seen: what each image is like is appended to it."""

    def predict_depth(color: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
        found = network(color, (camera.width, camera.height), focal)
        if seen is not None:
            seen.append(Likeness.of(color))
        return found.depth, found.depth_confidence

    return predict_depth


def track_images(
    sequence: Any,
    network: Network,
    config: VisualConfig | None = None,
    report: Callable[[], object] = lambda: None,
    folder: Path | None = None,
) -> VisualPoses:
    """Track a `sequences.Sequence` by its images, with the scale that the network's depths vote for.

    report: called for each frame. folder: of the tracker's temporary file. NoMap where the camera hardly moved
    sideways, or was lost in most of the frames: no depth could be measured from its images.
    """
    recorded: Camera = sequence.camera
    began = time.perf_counter()
    seen: list[Likeness] = []
    tracker, followed = _longest_scene(sequence, network, config, report, folder, seen)
    tracker.finish()
    scale, std = tracker.map.scale
    std = scale_std(std, seen)
    found = [tracker.pose(i) for i in range(len(sequence))]
    start = next((i for i, one in enumerate(found) if one is not None), 0)
    first = None if sequence.poses is None else sequence.poses[start]
    T_world_first = np.eye(4) if first is None else first  # as any tracker starts where the recording says
    T = poses.stacked(found)
    T[:, :3, 3] *= scale
    T = T_world_first @ T
    seconds = time.perf_counter() - began
    focal = tracker.map.camera.fx * recorded.width / tracker.size[0]
    depth = scale * tracker.map.depth
    count = len(tracker.map.keyframes)
    result = VisualPoses(T, followed.good, scale, std, count, depth, seconds, focal, tracker.map.focal_std)
    _check(sequence, result, followed.reason, (config or VisualConfig()).blank)
    logger.info(
        "visual tracking: %d keyframes, %d frames lost, scale %.3f +- %.0f %%",
        result.keyframes, result.lost, scale, 100 * std,
    )  # fmt: skip
    residual = tracker.map.residual
    if residual > RESIDUAL:
        logger.warning(
            "landmarks are %.1f pixels from where they should be (median; 0.7 to 0.9 in sound recordings): the images "
            "wobble or show moving things, and the map may be wrong", residual,
        )  # fmt: skip
    if mostly_strange(seen):
        logger.warning(
            "the images are darker, noisier, sharper or more blurred than those that the depth network was trained "
            "with: the map's size may be wrong by %.0f %%; --scale-from sets it by a known length or height", 100 * std,
        )  # fmt: skip
    return result


class Followed(NamedTuple):
    """What a tracker says of N frames while it follows them; their poses are `VisualTracker.pose`."""

    found: np.ndarray  # (N,) bool, which frames have a pose
    good: np.ndarray  # (N,) bool, which poses are beyond doubt
    reason: str  # why the last frame was lost that was


def follow_images(
    tracker: VisualTracker,
    sequence: Any,
    given: Sequence[np.ndarray | None],
    report: Callable[[], object] = lambda: None,
    start: int = 0,
) -> Followed:
    """Take a tracker through the images of a `sequences.Sequence` from frame `start` on.

    given: T_world_camera of each frame, if known. Where poses are given, tracking begins with the first frame that has
    one: those before it would begin a world of their own, which the given poses do not fit. report: called for each
    frame.
    """
    size, in_given_world = tuple(map(int, tracker.size)), any(T is not None for T in given)
    here, good = np.zeros((2, len(sequence)), bool)
    state, reason = "", ""

    def read(index: int) -> np.ndarray:
        color = sequence.color_of(index)
        return color if color.shape[1::-1] == size else cv2.resize(color, size, interpolation=cv2.INTER_AREA)

    for i, color in read_ahead(read, sequence.numbers(start), sequence.ahead):
        report()
        if in_given_world and given[i] is None and not tracker.map.keyframes:
            continue
        if isinstance(color, Exception):  # counted by the run
            continue
        found = tracker(i, color, given[i])
        if given[i] is None and found.state != state and (state or found.state != "good"):
            told = f": {found.reason}" if found.reason else ""
            logger.warning("frame %d: visual tracking is %s%s", i, found.state, told)
        state, reason = found.state, found.reason or reason
        here[i], good[i] = found.state != "lost", found.state == "good"
    return Followed(here, good, reason)


def _longest_scene(
    sequence: Any,
    network: Network,
    config: VisualConfig | None,
    report: Callable[[], object],
    folder: Path | None,
    seen: list[Likeness],
) -> tuple[VisualTracker, Followed]:
    """The tracker that found most frames of a `sequences.Sequence`, and what it said of them.

    Frames that are lost to the first tracker may show another scene, after a cut in the video; where they are more in a
    row than any tracker has found, one of their own follows the video from there. After one that soon loses them, as in
    a fade, the next begins later: by twice as much each time, but at most by half of the frames. report: called for
    each frame, once. seen: see `depths_by`.
    """
    camera, numbers = tracked_camera(sequence.camera), sequence.origin[1]
    best: tuple[VisualTracker, Followed] | None = None
    unknown, start, count, skip = np.ones(len(sequence), bool), 0, len(sequence), FEWEST // 2
    for attempt in range(MOST_SCENES):
        if attempt:
            last = numbers[start + count - 1]
            logger.warning("frames %d to %d may show another scene: tracked on their own", numbers[start], last)
        tracker = VisualTracker(camera, depths_by(network, camera, seen), config, sequence.camera.focal_known, folder)
        heard = (lambda: None) if attempt else report
        followed = follow_images(tracker, sequence, [None] * len(sequence), heard, start)
        if best is None or followed.found.sum() > best[1].found.sum():
            best = tracker, followed
        unknown &= ~followed.found
        begun = np.flatnonzero(followed.found)
        first = begun[0] if len(begun) else len(sequence)
        unknown[start:first] = False  # nothing to hold on to
        if len(begun) < FEWEST:
            unknown[first : first + max(len(begun), min(skip, count // 2))] = False
            skip *= 2
        start, count = longest_stretch(unknown)
        if count <= best[1].found.sum() or count < FEWEST:
            break
    assert best is not None
    return best


def longest_stretch(mask: np.ndarray) -> tuple[int, int]:
    """Where the longest run of True in a mask (N,) begins, and its length; 0, 0 where there is none."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]])))
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    if len(starts) == 0:
        return 0, 0
    longest = int(np.argmax(lengths))
    return int(starts[longest]), int(lengths[longest])


def _check(sequence: Any, found: VisualPoses, reason: str, blank: float) -> None:
    """NoMap where no map can be made of what was found of a `sequences.Sequence`; a warning that names the longest part
    that is not in the map. blank: grey levels, contrast below which an image shows nothing."""
    count, (start, length) = len(found.good), longest_stretch(~found.found)
    if found.found.sum() < max(2, LEAST_FOUND * count):
        raise NoMap(
            f"{sequence.name}: the camera could not be tracked by its images in {found.lost} of {count} frames "
            f"({reason or 'unreadable images'}); film slowly, in good light, with texture in view"
        )
    check_parallax(sequence.name, found)
    if length >= max(FEWEST, LEAST_FOUND * count):
        numbers = sequence.origin[1]
        first, last = numbers[np.flatnonzero(found.found)[[0, -1]]]
        if _shows_nothing(sequence, range(start, start + length), blank):
            logger.warning(
                "frames %d to %d are not in the map: their images show nothing (black, white or out of focus)",
                numbers[start], numbers[start + length - 1],
            )  # fmt: skip
            return
        logger.warning(
            "frames %d to %d are not in the map: they show another scene than frames %d to %d, or nothing that can be "
            "tracked; --start %d --frames %d maps them on their own, if they can be",
            numbers[start], numbers[start + length - 1], first, last, numbers[start], length,
        )  # fmt: skip


def _shows_nothing(sequence: Any, indices: Sequence[int], blank: float) -> bool:
    """Whether most of these frames of a `sequences.Sequence` are blank, by a few of them."""
    contrasts = []
    for index in evenly_spread(indices, LOOKED_AT):
        try:
            contrasts.append(float(cv2.cvtColor(sequence.color_of(index), cv2.COLOR_RGB2GRAY).std()))
        except (ValueError, OSError):  # counted by the run
            continue
    return bool(contrasts) and float(np.median(contrasts)) < blank


def check_parallax(name: str, found: VisualPoses) -> None:
    """NoMap where the camera of a recording of that name moved too little for its depth to be measured."""
    centres = found.T_world_camera[found.found, :3, 3]
    way = float(np.linalg.norm(centres - np.median(centres, axis=0), axis=1).max())
    if way < LEAST_WAY * found.depth:
        raise NoMap(
            f"{name}: the camera moved {way:.2f} m before a scene {found.depth:.1f} m away, which shows no parallax; "
            f"depth from images needs a camera that moves sideways, not one that stands or only turns"
        )
