"""Poses of a recording from its colour images alone, before any of it is fused."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from semslam import poses
from semslam.atomic import replacing
from semslam.frame import Frame
from semslam.perception import Network
from semslam.tracking.given_poses import GivenPoses
from semslam.tracking.visual import VisualTracker

logger = logging.getLogger(__name__)
KEPT = "visual.npz"  # in a run's folder
WIDEST = 640  # pixels: images are tracked at most so wide
LEAST_WAY = 0.03  # of the scene's depth; a camera that went less far shows no parallax


@dataclass(frozen=True, eq=False)
class VisualPoses:
    """What visual tracking found of each of N frames."""

    T_world_camera: np.ndarray  # (N, 4, 4) float64 metres, not finite where the camera was lost
    good: np.ndarray  # (N,) bool: sure enough to measure depth with
    scale: float  # metres in the unit that the first frame's predicted depth had
    scale_std: float  # relative standard deviation of the scale, by the scatter of the keyframes' votes
    keyframes: int
    depth: float  # metres: median of the landmarks'
    seconds: float  # that tracking took

    @property
    def lost(self) -> int:
        """How many frames have no pose."""
        return int(np.count_nonzero(~self.found))

    @property
    def found(self) -> np.ndarray:
        """(N,) bool: which frames have a pose."""
        return np.isfinite(self.T_world_camera[:, 0, 0])

    def save(self, path: Path) -> None:
        """Keep it, so that a run that goes on need not track again."""
        with replacing(path) as temporary, Path(temporary).open("wb") as file:
            np.savez(file, **vars(self))

    @staticmethod
    def load(path: Path, frames: int) -> VisualPoses | None:
        """What `save` kept of a recording of so many frames; None where there is nothing, or of another one."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                kept = VisualPoses(
                    arrays["T_world_camera"],
                    arrays["good"],
                    float(arrays["scale"]),
                    float(arrays["scale_std"]),
                    int(arrays["keyframes"]),
                    float(arrays["depth"]),
                    float(arrays["seconds"]),
                )
        except Exception:  # damaged or of another version: it is made again
            return None
        return kept if kept.T_world_camera.shape == (frames, 4, 4) and kept.good.shape == (frames,) else None

    def figures(self) -> dict[str, Any]:
        """For metrics.json: what the poses are worth."""
        return {
            "tracking": "colour alone",
            "visual_keyframes": self.keyframes,
            "scale_std": self.scale_std,
            "tracking_seconds": self.seconds,
        }

    def given(self) -> GivenPoses:
        """As the poses of a run; frames that are not good enough are lost to it."""

        def pose_of(frame: Frame) -> np.ndarray | None:
            return self.T_world_camera[frame.index] if self.good[frame.index] else None

        return GivenPoses(pose_of, "visual tracking")


def visual_poses(folder: Path, sequence: Any, network: Network, report: Callable[[], object]) -> VisualPoses:
    """What a run's folder keeps of the visual tracking of its sequence; made and kept there where it does not."""
    if (kept := VisualPoses.load(folder / KEPT, len(sequence))) is not None:
        return kept
    found = track_images(sequence, network, report)
    found.save(folder / KEPT)
    return found


def track_images(sequence: Any, network: Network, report: Callable[[], object] = lambda: None) -> VisualPoses:
    """Track a `sequences.Sequence` by its images, with the scale that the network's depths vote for.

    report: called after each frame. ValueError where the camera hardly moved
    sideways, or was lost in most of the frames: no depth could be measured from its images.
    """
    shrink = max(1.0, sequence.camera.width / WIDEST)
    camera = sequence.camera.resized(round(sequence.camera.width / shrink), round(sequence.camera.height / shrink))
    size = (camera.width, camera.height)

    def depth_of(color: np.ndarray) -> np.ndarray:
        return network(color, size, camera.fx).depth

    tracker = VisualTracker(camera, depth_of)
    began = time.perf_counter()
    relative: list[tuple[int, np.ndarray] | None] = []
    sure: list[bool] = []
    state, reason = "", ""
    for i in sequence.numbers():
        sure.append(False)
        report()
        try:
            color = sequence[i].color
        except (ValueError, OSError):  # counted by the run
            relative.append(None)
            continue
        if color.shape[1::-1] != size:
            color = cv2.resize(color, size, interpolation=cv2.INTER_AREA)
        found = tracker(i, color)
        if found.state != state and (state or found.state != "good"):
            told = f": {found.reason}" if found.reason else ""
            logger.warning("frame %d: visual tracking is %s%s", i, found.state, told)
        state, reason = found.state, found.reason or reason
        if found.state == "lost":
            relative.append(None)
            continue
        k = len(tracker.keyframes) - 1
        relative.append((k, poses.inverse(found.T_world_camera) @ poses.inverse(tracker.keyframes[k].T_camera_world)))
        sure[i] = found.state == "good"
    good = np.array(sure)
    tracker.finish()
    scale, scale_std = tracker.scale
    T = np.full((len(good), 4, 4), np.nan)
    recorded = None if sequence.poses is None else sequence.poses[0]
    T_world_first = np.eye(4) if recorded is None else recorded  # as any tracker starts where the recording says
    for i, one in enumerate(relative):
        if one is not None:
            k, T_camera_keyframe = one
            T[i] = poses.inverse(T_camera_keyframe @ tracker.keyframes[k].T_camera_world)
            T[i, :3, 3] *= scale
            T[i] = T_world_first @ T[i]
    known = tracker.log_depth[tracker.variance < 0.3**2]
    depth = scale * float(np.exp(np.median(known if len(known) else tracker.log_depth))) if len(tracker.host) else 1.0
    seconds = time.perf_counter() - began
    result = VisualPoses(T, good, scale, scale_std, len(tracker.keyframes), depth, seconds)
    _check(sequence.name, result, reason)
    logger.info(
        "visual tracking: %d keyframes, %d frames lost, scale %.3f +- %.0f %%",
        result.keyframes, result.lost, scale, 100 * scale_std,
    )  # fmt: skip
    return result


def _check(name: str, found: VisualPoses, reason: str) -> None:
    """ValueError where no map can be made of what was found."""
    if found.found.sum() < max(2, 0.2 * len(found.good)):
        raise ValueError(
            f"{name}: the camera could not be tracked by its images in {found.lost} of {len(found.good)} frames "
            f"({reason or 'unreadable images'}); film slowly, in good light, with texture in view"
        )
    centres = found.T_world_camera[found.found, :3, 3]
    way = float(np.linalg.norm(centres - np.median(centres, axis=0), axis=1).max())
    if way < LEAST_WAY * found.depth:
        raise ValueError(
            f"{name}: the camera moved {way:.2f} m before a scene {found.depth:.1f} m away, which shows no parallax; "
            f"depth from images needs a camera that moves sideways, not one that stands or only turns"
        )
