"""Poses of a recording from its colour images alone, before any of it is fused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.perception import Network
from semslam.runs.color_only.following import FEWEST, Followed, longest_stretch
from semslam.runs.color_only.likeness import scale_std, share_strange
from semslam.runs.color_only.straightening import at_one_moment, straight_scene, unrolled
from semslam.runs.poses import ListedPoses
from semslam.runs.progress import NoMap
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.flat_picture import is_flat_picture
from semslam.tracking.visual.lens import focal_spread_of
from semslam.tracking.visual.sparse_map import SparseMap
from sequences import Sequence as Recording
from sequences.recalibrated import RecalibratedSequence, StraightenedSequence, UnzoomedSequence, numbers_of, with_lens

logger = logging.getLogger(__name__)
KEPT = "visual.npz"  # in a run's folder
LEAST_FOUND = 0.2  # of the frames: with fewer there is no map; as many in a row that are lost are named
LEAST_WAY = 0.03  # of the scene's depth; a camera that went less far shows no parallax


@dataclass(frozen=True, eq=False)
class VisualPoses:
    """What visual tracking found of each of N frames."""

    T_world_camera: np.ndarray  # (N, 4, 4) float64 metres, not finite where the camera was lost
    good: np.ndarray  # (N,) bool: sure enough to measure depth with
    scale: float  # metres in the unit that the first frame's predicted depth had
    scale_std: float  # relative standard deviation of the scale; see `votes.voted_scale`, `likeness`
    keyframes: int
    depth: float  # metres: median of the landmarks'
    seconds: float  # that tracking took
    focal: float  # of the recording's images, pixels; of the widest, where the camera zoomed
    focal_std: float  # its relative standard deviation; 0 = it was known
    strange: float  # share of the images with predicted depth that are unlike those of its training; see `likeness`
    residual: float  # pixels of tracked images: median distance of landmarks from where they should be; NaN = unknown
    restless: float = 0.0  # share of the frames that became keyframes as they had lost much and hardly moved
    focal_spread: float = np.nan  # relative standard deviation over the film: see `focal_spread_of`
    zoom: np.ndarray | None = None  # (N,) each frame's focal length over that of the widest; None = all alike
    lens: np.ndarray | None = None  # (1, 6) fx fy cx cy, pixels, k1 k2 of the recording's images; None = as it is said
    readout: np.ndarray | None = None  # (1, 2) seconds, see `Camera.elapsed`, that is undone; None = none

    @property
    def lost(self) -> int:
        """How many frames have no pose."""
        return int(np.count_nonzero(~self.found))

    @property
    def found(self) -> np.ndarray:
        """(N,) bool: which frames have a pose."""
        return np.isfinite(self.T_world_camera[:, 0, 0])

    def figures(self) -> dict[str, Any]:
        """For metrics.json: what the poses are worth."""
        return {
            "tracking": "colour alone",
            "visual_keyframes": self.keyframes,
            "scale_std": self.scale_std,
            "tracking_seconds": self.seconds,
            "focal_pixels": self.focal,
            "focal_std": self.focal_std,
            "strange_images": self.strange,
            "residual_pixels": self.residual if np.isfinite(self.residual) else None,
            "restless_images": self.restless,
            "focal_spread": self.focal_spread if np.isfinite(self.focal_spread) else None,
            "lens": None if self.lens is None else self.lens[0].tolist(),
            "color_readout_s": 0.0 if self.readout is None else float(np.abs(self.readout).max()),
            "zoom": 1.0 if self.zoom is None else float(self.zoom.max() / self.zoom.min()),
        }

    def calibrated(self, sequence: Recording) -> Recording:
        """The `sequences.Sequence` that was tracked, with the focal length that was found where none was known, and as
        if the camera had neither zoomed nor distorted more than is said, and read each image at one moment."""
        if self.lens is not None:
            sequence = StraightenedSequence(sequence, with_lens(sequence.camera, self.lens[0]))
        if not sequence.camera.focal_known:
            sequence = RecalibratedSequence(sequence, sequence.camera.with_focal(self.focal))
        if self.zoom is not None:
            sequence = UnzoomedSequence(sequence, self.zoom)
        return at_one_moment(sequence, self.readout, self.T_world_camera, self.depth)

    def scaled(self, factor: float, std: float) -> VisualPoses:
        """The same with all lengths times a factor, from the first pose on; std: relative, of the scale from now on."""
        first = self.T_world_camera[np.argmax(self.found)]
        T = self.T_world_camera.copy()
        T[:, :3, 3] = first[:3, 3] + factor * (T[:, :3, 3] - first[:3, 3])
        return replace(self, T_world_camera=T, scale=factor * self.scale, scale_std=std, depth=factor * self.depth)

    def given(self) -> ListedPoses:
        """As the poses of a run; frames that are not good enough are lost to it."""
        T = [T if good else None for T, good in zip(self.T_world_camera, self.good)]
        return ListedPoses(T, "visual tracking", readable=self.found)


def track_images(
    sequence: Recording,
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
    (tracker, followed, images), zoom, lens = straight_scene(sequence, network, config, report, folder)
    tracker, readout = (tracker, None) if zoom is not None else unrolled(tracker, sequence.timestamps)
    scale, std = tracker.map.scale
    strange = share_strange(images)
    std = scale_std(std, strange)
    found = [tracker.pose(i) for i in range(len(sequence))]
    start = next((i for i, one in enumerate(found) if one is not None), 0)
    first = None if sequence.poses is None else sequence.poses[start]
    T_world_first = np.eye(4) if first is None else first  # as any tracker starts where the recording says
    T = poses.stacked(found)
    T[:, :3, 3] *= scale
    T = T_world_first @ T
    result = VisualPoses(
        T_world_camera=T,
        good=followed.good,
        scale=scale,
        scale_std=std,
        keyframes=len(tracker.map.keyframes),
        depth=scale * tracker.map.depth,
        seconds=time.perf_counter() - began,
        focal=lens.fx if lens is not None else _focal(tracker.map, recorded.width / tracker.size[0], zoom),
        focal_std=tracker.map.focal_std,
        strange=strange,
        residual=tracker.map.residual,
        restless=tracker.forced / max(1, int(followed.found.sum())),
        focal_spread=focal_spread_of(tracker.map),
        zoom=zoom,
        lens=None if lens is None else numbers_of(lens)[None],
        readout=readout,
    )
    if is_flat_picture(tracker.map):
        raise NoMap(
            f"{sequence.name}: the images are one flat picture that is shifted and enlarged, a photograph, a slide "
            f"or the view of a camera that only turns; depth needs a camera that moves sideways through what it films"
        )
    _check(sequence, result, followed)
    logger.info(
        "visual tracking: %d keyframes, %d frames lost, scale %.3f +- %.0f %%",
        result.keyframes, result.lost, scale, 100 * std,
    )  # fmt: skip
    return result


def _focal(found: SparseMap, enlarged: float, zoom: np.ndarray | None) -> float:
    """Pixels of the recorded images, so many times as large as those that were tracked: the focal length; of images
    that zoom the one by which `zoom` counts."""
    return float(found.camera.fx * enlarged / (1 if zoom is None else zoom.max()))


def _check(sequence: Recording, found: VisualPoses, followed: Followed) -> None:
    """NoMap where no map can be made of what was found of a `sequences.Sequence`; warnings that name the longest parts
    that are not in the map."""
    count, numbers = len(found.good), sequence.origin[1]
    if found.found.sum() < max(2, LEAST_FOUND * count):
        raise NoMap(
            f"{sequence.name}: the camera could not be tracked by its images in {found.lost} of {count} frames "
            f"({followed.reason or 'unreadable images'}); film slowly, in good light, with texture in view"
        )
    check_parallax(sequence.name, found)
    fewest, lost = max(FEWEST, LEAST_FOUND * count), ~found.found
    start, length = longest_stretch(lost & followed.blank)
    if length >= fewest:
        logger.warning(
            "frames %d to %d are not in the map: their images show nothing (black, white or out of focus)",
            numbers[start], numbers[start + length - 1],
        )  # fmt: skip
    start, length = longest_stretch(lost & ~followed.blank)
    if length >= fewest:
        first, last = numbers[np.flatnonzero(found.found)[[0, -1]]]
        logger.warning(
            "frames %d to %d are not in the map: they show another scene than frames %d to %d, or are zoomed, or show "
            "nothing that can be tracked; --start %d --frames %d maps them on their own, if they can be",
            numbers[start], numbers[start + length - 1], first, last, numbers[start], length,
        )  # fmt: skip


def check_parallax(name: str, found: VisualPoses) -> None:
    """NoMap where the camera of a recording of that name moved too little for its depth to be measured."""
    centres = found.T_world_camera[found.found, :3, 3]
    way = float(np.linalg.norm(centres - np.median(centres, axis=0), axis=1).max())
    if way < LEAST_WAY * found.depth:
        raise NoMap(
            f"{name}: the camera moved {way:.2f} m in {found.found.sum()} frames, before a scene {found.depth:.1f} m "
            f"away, which shows no parallax; depth from images needs a camera that moves sideways, not one that stands "
            f"or only turns"
        )
