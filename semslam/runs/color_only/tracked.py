"""The poses of a run without a depth camera: what its folder keeps of them, or the whole of visual tracking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from semslam.perception import Network
from semslam.runs.color_only.known_scale import KnownSize, with_known_size
from semslam.runs.color_only.poses import KEPT, VisualPoses, track_images
from semslam.runs.color_only.settings import settings_of_poses
from semslam.runs.color_only.sfm import sfm_poses
from semslam.runs.config import RunConfig


def visual_poses(
    folder: Path, sequence: Any, network: Network, config: RunConfig, report: Callable[[], object]
) -> VisualPoses:
    """What a run's folder keeps of the poses of its `sequences.Sequence` by colour alone; made and kept there where it
    does not, or with other settings: by visual tracking, or where `config.poses` is sfm by structure from motion.

    report: called after each frame that is tracked.
    """
    settings = settings_of_poses(config)
    if (kept := VisualPoses.load(folder / KEPT, len(sequence), settings)) is not None:
        return kept
    slam = config.slam
    if config.poses == "sfm":
        found = sfm_poses(sequence, network, report)
    else:
        found = track_images(sequence, network, slam.visual, report, folder)
    if config.scale_from is not None:
        known, calibrated = KnownSize.parsed(config.scale_from), found.calibrated(sequence)
        found = with_known_size(found, known, calibrated, network, slam.perception.classes, slam.multiview)
    found.save(folder / KEPT, settings)
    return found
