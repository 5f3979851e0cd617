"""Given poses held against the images: kept where they agree, else corrected by what the images show."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.perception import Network
from semslam.runs.color_only.poses import follow_images, tracked_camera
from semslam.runs.color_only.settings import settings_of_poses
from semslam.runs.config import RunConfig
from semslam.runs.storage.arrays import load_arrays, parts_of, save_arrays
from semslam.tracking.visual import VisualConfig, VisualTracker

FITTED = "fitted.npz"  # in a run's folder
FEWEST = 3  # keyframes, from which poses can be contradicted
AGREES = 0.5  # pixels, besides those of corrected poses (in quadrature): given poses that are nearer are kept


@dataclass(frozen=True, eq=False)
class FittedPoses:
    """N given poses after they met the images."""

    T_world_camera: np.ndarray  # (N, 4, 4) float64 metres, not finite where none was given
    misfit_given: float  # pixels: median distance of landmarks from where the given poses would show them ...
    misfit: float  # ... and corrected ones
    moved: float  # metres: median over frames
    turned: float  # radians: likewise
    corrected: bool  # whether these are the corrected ones
    seconds: float  # that fitting took

    def listed(self) -> list[np.ndarray | None]:
        """T_world_camera (4, 4) of each frame, None where it is not known."""
        return [T if np.isfinite(T[0, 0]) else None for T in self.T_world_camera]

    def figures(self) -> dict[str, Any]:
        """For metrics.json."""
        return {
            "poses_corrected": self.corrected,
            "poses_misfit_px": self.misfit_given,
            "poses_misfit_corrected_px": self.misfit,
            "poses_moved_m": self.moved,
            "poses_turned_deg": float(np.degrees(self.turned)),
            "fitting_seconds": self.seconds,
        }

    def save(self, path: Path, settings: str) -> None:
        """Keep it, and the settings that it was made with, so that a run that goes on need not do it again."""
        arrays = {name: np.asarray(value) for name, value in vars(self).items()}
        save_arrays(path, parts_of(arrays | {"settings": np.array(settings)}))

    @staticmethod
    def load(path: Path, frames: int, settings: str | None = None) -> FittedPoses | None:
        """What `save` kept of so many frames; None where there is nothing, or of another recording or with other
        settings than these, if there are any."""
        try:
            arrays = load_arrays(path)
            if str(arrays.pop("settings")) != settings and settings is not None:
                return None
            T = arrays.pop("T_world_camera")
            kept = FittedPoses(T, **{name: value.item() for name, value in arrays.items()})
        except (ValueError, OSError, KeyError, TypeError):  # none, damaged or of another version: it is made again
            return None
        return kept if T.shape == (frames, 4, 4) else None


def fit_to_images(
    sequence: Any,
    given: Sequence[np.ndarray | None],
    network: Network,
    config: VisualConfig,
    report: Callable[[], object] = lambda: None,
) -> FittedPoses:
    """The given poses of a `sequences.Sequence`, T_world_camera (4, 4) or None of each frame, as the images want them.

    Recorded poses are often inconsistent by centimetres and degrees over a few dozen frames, which depth by parallax
    does not forgive. They are the prior of a bundle adjustment, whose standard deviations `config` holds. Poses that
    agree with the images nearly as well as the result (`AGREES`) are kept to the last bit.

    report: called for each frame.
    """
    recorded: Camera = sequence.camera
    began = time.perf_counter()
    before = np.stack([np.full((4, 4), np.nan) if T is None else np.asarray(T, np.float64) for T in given])
    kept = FittedPoses(before, math.nan, math.nan, 0.0, 0.0, False, 0.0)
    if not np.isfinite(before).any():
        return kept
    camera = tracked_camera(recorded)
    size = (camera.width, camera.height)
    tracker = VisualTracker(camera, lambda color, focal: network(color, size, focal).depth, config)
    followed = follow_images(tracker, sequence, given, report)
    world = tracker.map
    if len(world.keyframes) < FEWEST:
        return replace(kept, seconds=time.perf_counter() - began)
    world.adjust_all()
    held = np.stack([world.T_camera_world[k] if f.given is None else f.given for k, f in enumerate(world.keyframes)])
    misfits = world.misfit(held), world.misfit(world.T_camera_world)
    after = before.copy()
    for i, found in enumerate(followed.relative):
        if found is not None and given[i] is not None:
            k, T_camera_keyframe = found
            after[i] = poses.inverse(T_camera_keyframe @ world.T_camera_world[k])
    after = _in_metres_of(before, after)
    steps = [poses.inverse(a) @ b for a, b in zip(before, after) if np.isfinite(a[0, 0])]
    moved = float(np.median([np.linalg.norm(step[:3, 3]) for step in steps]))
    turned = float(np.median([poses.rotation_angle(step) for step in steps]))
    corrected = misfits[0] > math.hypot(misfits[1], AGREES)
    seconds = time.perf_counter() - began
    return FittedPoses(after if corrected else before, *misfits, moved, turned, corrected, seconds)


def fitted_poses(
    folder: Path,
    sequence: Any,
    given: Sequence[np.ndarray | None],
    network: Network,
    config: RunConfig,
    report: Callable[[], object],
) -> FittedPoses:
    """`fit_to_images`, or what a run's folder keeps of it; kept there where it does not."""
    settings = settings_of_poses(config)
    if (kept := FittedPoses.load(folder / FITTED, len(sequence), settings)) is not None:
        return kept
    found = fit_to_images(sequence, given, network, config.slam.visual, report)
    found.save(folder / FITTED, settings)
    return found


def _in_metres_of(given: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Fitted poses (N, 4, 4) with the scale (least squares) and the mean position of the given ones.

    A bundle adjustment moves the scale of all slowly, and ends before it is where the given poses want it.
    """
    known = np.isfinite(given[:, 0, 0])
    a, b = given[known, :3, 3], fitted[known, :3, 3]
    from_a, from_b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = float((from_b**2).sum())
    scale = float((from_a * from_b).sum()) / size if size > 1e-9 else 1.0
    result = fitted.copy()
    result[:, :3, 3] = a.mean(axis=0) + max(scale, 0.1) * (fitted[:, :3, 3] - b.mean(axis=0))
    return result
