"""TUM RGB-D: rgb.txt, depth.txt and groundtruth.txt, each with its own clock ticks."""

from __future__ import annotations

import logging
import re
from functools import partial
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.trajectory import associate, read_tum
from sequences.sequence import ImageSequence

logger = logging.getLogger(__name__)

LAYOUT = "rgb.txt and depth.txt (timestamp file), groundtruth.txt"
DEPTH_SCALE = 5000.0  # units per metre
POSE_GAP = 0.1  # seconds; between motion-capture poses further apart the camera may have been anywhere

# Calibrations that come with the data set; freiburg3's images are undistorted already.
CAMERAS = {
    "1": Camera(
        640, 480, 517.306408, 516.469215, 318.643040, 255.313989, (0.262383, -0.953104, -0.005358, 0.002628, 1.163314)
    ),
    "2": Camera(
        640, 480, 520.908620, 521.007327, 325.141442, 249.701764, (0.231222, -0.784899, -0.003257, -0.000105, 0.917205)
    ),
    "3": Camera(640, 480, 535.4, 539.2, 320.1, 247.6),
}
ROS_DEFAULT = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)


def fits(path: Path) -> bool:
    return (path / "rgb.txt").is_file() and (path / "depth.txt").is_file()


def open_tum(
    path: str | Path,
    *,
    depth_scale: float | None = None,
    camera: Camera | None = None,
    max_difference: float = 0.02,
) -> ImageSequence:
    """Open a TUM RGB-D folder. A frame is a colour image with the depth image within `max_difference` seconds.

    Depth is registered to colour. The camera follows from 'freiburg1..3' or 'fr1..3' in the folder's name.
    A frame's pose is interpolated between the motion-capture poses around its colour image.
    """
    path = Path(path)
    camera = _camera(path) if camera is None else camera
    color_times, color = _listed(path / "rgb.txt")
    depth_times, depth = _listed(path / "depth.txt")
    of_color, of_depth = associate(color_times, depth_times, max_difference)
    if len(of_color) == 0:
        raise ValueError(
            f"{path}: no image of rgb.txt has a depth image within {max_difference} s; the clocks start at "
            f"{color_times[0]:.3f} and {depth_times[0]:.3f} s"
        )
    timestamps = color_times[of_color]
    truth = read_tum(path / "groundtruth.txt") if (path / "groundtruth.txt").is_file() else None
    return ImageSequence(
        name=path.resolve().name,
        camera=camera.undistorted(),
        timestamps=timestamps,
        color_paths=tuple(color[i] for i in of_color),
        depth_paths=tuple(depth[i] for i in of_depth),
        poses=None if truth is None else tuple(truth.at(t, max_gap=POSE_GAP) for t in timestamps),
        read_color=images.undistorting(images.read_color, camera),
        read_depth=images.undistorting(
            partial(images.read_depth, depth_scale=depth_scale or DEPTH_SCALE), camera, nearest=True
        ),
    )


def _camera(path: Path) -> Camera:
    match = re.search(r"(?:freiburg|fr)([123])(?!\d)", path.resolve().name)
    if match:
        return CAMERAS[match[1]]
    logger.warning("%s: the name has no freiburg1..3; taking ROS' default camera (525 525 319.5 239.5)", path)
    return ROS_DEFAULT


def _listed(path: Path) -> tuple[np.ndarray, list[Path]]:
    """Times (N,) in seconds, increasing, and the files of a list of `timestamp file` lines."""
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        try:
            entries.append((float(words[0]), path.parent / words[1]))
        except (ValueError, IndexError):
            raise ValueError(f"{path}:{number}: '{line[:60]}' is not 'timestamp file'") from None
    if not entries:
        raise ValueError(f"{path}: lists no images")
    entries.sort(key=lambda entry: entry[0])
    return np.array([time for time, _ in entries]), [file for _, file in entries]
