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
from semslam.runs.color_only.clocks import at_other_times, time_offset
from semslam.runs.color_only.following import depths_by, follow_images, tracked_camera
from semslam.runs.color_only.kept import load_kept, save_kept
from semslam.runs.color_only.settings import settings_of_poses
from semslam.runs.color_only.straightening import TOLD, Straight, at_one_moment, straightened, tell_lens, unrolled
from semslam.runs.config import RunConfig
from semslam.tracking.visual.config import VisualConfig
from semslam.tracking.visual.lens import lens_of
from semslam.tracking.visual.sparse_map import SparseMap
from semslam.tracking.visual.visual_tracker import VisualTracker
from sequences import Sequence as Recording
from sequences.recalibrated import StraightenedSequence, numbers_of, with_lens

FITTED = "fitted.npz"  # in a run's folder
FEWEST = 3  # keyframes, from which poses can be contradicted
AGREES = 0.5  # pixels, besides those of corrected poses (in quadrature): given poses that are nearer are kept
WORSE = 1.02  # times the misfit of poses that are free to move: what is nearer to the given ones and no worse is taken
REACHED = 0.8  # share of keyframes that must have a pose at other times for these to be tried
HALVINGS = 5  # of the given poses' standard deviations, at most


@dataclass(frozen=True, eq=False)
class FittedPoses:
    """N given poses after they met the images."""

    T_world_camera: np.ndarray  # (N, 4, 4) float64 metres, not finite where none was given
    misfit_given: float  # pixels: median distance of landmarks from where the given poses would show them ...
    misfit: float  # ... and corrected ones
    moved: float  # metres: median over frames
    turned: float  # radians: likewise
    corrected: bool  # whether these are other ones than were given
    time_offset: float  # seconds from the time of each image to that of the poses that it fits, 0 where that is none
    seconds: float  # that fitting took
    lens: np.ndarray | None = None  # (1, 6) fx fy cx cy, pixels, k1 k2 of the recording's images; None = as it is said
    readout: np.ndarray | None = None  # (1, 2) seconds, see `Camera.elapsed`, that is undone; None = none
    depth: float = 0.0  # metres: median of the landmarks', where a readout is undone
    readable: np.ndarray | None = None  # (N,) bool, which images could be read; None = nobody looked

    def calibrated(self, sequence: Recording) -> Recording:
        """The `sequences.Sequence` that the poses were fitted to, without the distortion that was found, each
        image read at one moment."""
        if self.lens is not None:
            sequence = StraightenedSequence(sequence, with_lens(sequence.camera, self.lens[0]))
        return at_one_moment(sequence, self.readout, self.T_world_camera, self.depth)

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
            "poses_time_offset_s": self.time_offset,
            "fitting_seconds": self.seconds,
            "lens": None if self.lens is None else self.lens[0].tolist(),
            "color_readout_s": 0.0 if self.readout is None else float(np.abs(self.readout).max()),
        }


def fit_to_images(
    sequence: Recording,
    given: Sequence[np.ndarray | None],
    network: Network,
    config: VisualConfig,
    report: Callable[[], object] = lambda: None,
    folder: Path | None = None,
) -> FittedPoses:
    """The given poses of a `sequences.Sequence`, T_world_camera (4, 4) or None of each frame, as the images want them.

    Recorded poses are often inconsistent by centimetres and degrees over a few dozen frames, which depth by parallax
    does not forgive. Poses that agree with the images nearly as well as the best ones (`AGREES`) are kept to the last
    bit. Else a lens and a rolling shutter that the landmarks tell of are undone, as where no poses are given, and where
    the clocks of camera and poses differ, these are taken at the times that fit. What contradicts the images even so is
    the prior of a bundle adjustment, with the smallest standard deviations for which the landmarks are not farther off
    than by `WORSE` (the discrepancy principle; Morozov, "On the solution of functional equations by the method of
    regularization", 1966), at most those of `config`.

    report: called for each frame. folder: of the tracker's temporary file.
    """
    recorded: Camera = sequence.camera
    began = time.perf_counter()
    before = poses.stacked(given)
    kept = FittedPoses(before, math.nan, math.nan, 0.0, 0.0, False, 0.0, 0.0)
    if not np.isfinite(before).any():
        return kept
    camera = tracked_camera(recorded)
    tracker = VisualTracker(camera, depths_by(network, camera), config, folder=folder)
    kept = replace(kept, readable=follow_images(tracker, sequence, given, report).readable)
    world = tracker.map
    if len(world.keyframes) < FEWEST:
        return replace(kept, seconds=time.perf_counter() - began)
    tracker.finish()
    misfit_given, least = world.misfit(_held(world)), world.misfit(world.T_camera_world)
    agrees = math.hypot(least, AGREES)
    kept = replace(kept, misfit_given=misfit_given, misfit=misfit_given, seconds=time.perf_counter() - began)
    if not misfit_given > agrees:
        return kept
    tracker, lens = _without_lens(tracker, recorded)
    tracker, readout = unrolled(tracker, sequence.timestamps)
    world = tracker.map
    kept = replace(kept, lens=lens, readout=readout, depth=0.0 if readout is None else world.depth)
    least = world.misfit(world.T_camera_world)
    agrees, misfit = math.hypot(least, AGREES), world.misfit(_held(world))
    if not misfit > agrees:  # lens and shutter were all that they contradicted
        return replace(kept, misfit=misfit, seconds=time.perf_counter() - began)
    offset, after = _at_fitting_times(world, given, sequence.timestamps, least)
    if offset:
        unreached = ~np.isfinite(after[:, 0, 0])
        after[unreached] = before[unreached]  # a pose that is a little late is better than none
        for keyframe in world.keyframes:
            T = after[keyframe.index]
            keyframe.given = poses.inverse(T) if np.isfinite(T[0, 0]) else None
        misfit = world.misfit(_held(world))
    if misfit > agrees:
        _hold_firmly(world, WORSE * least)
        misfit = world.misfit(world.T_camera_world)
        found = poses.stacked(tracker.pose(i) for i in range(len(given)))
        there = np.isfinite(found[:, 0, 0]) & np.isfinite(before[:, 0, 0])
        after[there] = found[there]
    moved, turned = _median_change(before, after)
    seconds = time.perf_counter() - began
    return replace(
        kept, T_world_camera=after, misfit=misfit, moved=moved, turned=turned, corrected=True, time_offset=offset,
        seconds=seconds,
    )  # fmt: skip


def _without_lens(tracker: VisualTracker, recorded: Camera) -> tuple[VisualTracker, np.ndarray | None]:
    """What was tracked, without the distortion of the lens that its landmarks tell of, and that lens of the recording's
    images: (1, 6), see `FittedPoses`; None where they tell of none."""
    as_said = Straight(tracker, None, lens_of(tracker.map))
    best = straightened(as_said, recorded.undistorted())
    if best.lens is None:
        return tracker, None
    tell_lens(best.lens, as_said.left is not None and as_said.left.most > TOLD, best.left)
    return best.tracker, numbers_of(best.lens)[None]


def _at_fitting_times(
    world: SparseMap, given: Sequence[np.ndarray | None], timestamps: np.ndarray, least: float
) -> tuple[float, np.ndarray]:
    """By how many seconds the clocks of images and poses differ, and the poses (N, 4, 4) at the images' times then.

    timestamps: (N,) seconds of the images. least: pixels, the misfit of poses that are free to move.
    """
    indices = [keyframe.index for keyframe in world.keyframes]
    recorded = np.isfinite(poses.stacked(given)[indices, 0, 0]).sum()

    def at(offset: float) -> np.ndarray:
        return poses.stacked(at_other_times(given, timestamps, offset))

    def misfit_at(offset: float) -> float:
        T = at(offset)[indices]
        reached = np.isfinite(T[:, 0, 0]).sum()
        return world.misfit(_held(world, T)) if reached >= REACHED * recorded else math.inf

    offset = time_offset(misfit_at, least)
    return offset, at(offset)


def _median_change(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """Metres and radians: medians over the poses (N, 4, 4) that both have."""
    steps = [poses.inverse(a) @ b for a, b in zip(before, after) if np.isfinite(a[0, 0]) and np.isfinite(b[0, 0])]
    metres = float(np.median([np.linalg.norm(step[:3, 3]) for step in steps]))
    return metres, float(np.median([poses.rotation_angle(step) for step in steps]))


def _held(world: SparseMap, T_world_camera: np.ndarray | None = None) -> np.ndarray:
    """T_camera_world (K, 4, 4) of the keyframes as they were given, or these poses; as they are where that is none."""
    given = [keyframe.given for keyframe in world.keyframes]
    if T_world_camera is not None:
        given = [poses.inverse(T) if np.isfinite(T[0, 0]) else None for T in T_world_camera]
    return np.stack([now if T is None else T for T, now in zip(given, world.T_camera_world)])


def _hold_firmly(world: SparseMap, most: float) -> None:
    """Adjust a map to the given poses as firmly as its misfit stays at most so many pixels."""
    world.adjust_all()
    for _ in range(HALVINGS):
        loose, before = world.given_std, world.snapshot()
        world.given_std = loose[0] / 2, loose[1] / 2
        world.adjust_all()
        if world.misfit(world.T_camera_world) > most:
            world.given_std = loose
            world.restore(before)  # poses that are held too firmly make good observations look wrong
            return


def fitted_poses(
    folder: Path,
    sequence: Recording,
    given: Sequence[np.ndarray | None],
    network: Network,
    config: RunConfig,
    report: Callable[[], object],
) -> FittedPoses:
    """`fit_to_images`, or what a run's folder keeps of it; kept there where it does not."""
    settings = settings_of_poses(config, sequence)
    if (kept := load_kept(folder / FITTED, FittedPoses, len(sequence), settings)) is not None:
        return kept
    found = fit_to_images(sequence, given, network, config.slam.visual, report, folder)
    save_kept(folder / FITTED, found, settings)
    return found
