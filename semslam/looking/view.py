"""A run as something to look at: its map, path, camera and, where it was evaluated, its errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from semslam import config as configs
from semslam.camera import Camera
from semslam.looking.viewed import Viewed
from semslam.runs.folder import RunFolder
from semslam.runs.run import RunConfig


def viewed_run(run: str | Path) -> Viewed:
    """The map of a run folder and what is shown with it."""
    folder = RunFolder.open(run)
    cloud, label_set = folder.load_cloud()
    trajectory = folder.load_trajectory().T_world_camera if folder.trajectory.is_file() else None
    errors = folder.load_errors()
    if errors is not None and len(errors) != len(cloud):
        errors = None  # of an earlier map in this folder
    return Viewed(cloud, label_set, str(run), trajectory, recorded_camera(folder), errors)


def recorded_camera(folder: RunFolder) -> Camera | None:
    """The camera of the run's sequence; None where that is no longer there."""
    try:
        return configs.load(folder.config, RunConfig).open_sequence().camera
    except (ValueError, OSError):
        return None


def has_display() -> bool:
    """Whether a window would be seen: without a display Open3D draws off-screen and nobody could close it."""
    return not sys.platform.startswith("linux") or any(os.environ.get(v) for v in ("DISPLAY", "WAYLAND_DISPLAY"))
