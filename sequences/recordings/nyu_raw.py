"""NYUDv2's raw recordings: r-*.ppm and d-*.pgm, neither synchronised nor registered."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from sequences.nyu_calibration import COLOR_CAMERA, DEPTH_CAMERA, T_COLOR_DEPTH
from sequences.pairing import MOST, depth_delays
from sequences.recordings.registration import registered_depth
from sequences.sequence import ImageSequence

LAYOUT = "r-<seconds>-<tick>.ppm and d-<seconds>-<tick>.pgm"
FARTHEST = 10.0  # metres
NO_READING = 2047  # raw 11-bit disparity
APART = 0.1  # seconds; images further apart are of different moments
SMALLEST_RAW = 600  # smaller raw values are noise, as the toolbox has it


def fits(path: Path) -> bool:
    return any(path.glob("d-*.pgm")) and any(path.glob("r-*.ppm"))


def open_nyu_raw(path: str | Path, *, camera: Camera | None = None) -> ImageSequence:
    """Open a raw scene: colour undistorted, depth projected onto it as the toolbox does. No poses, no labels."""
    path = Path(path)
    depth_times, depth = _stamped(path, "d-*.pgm")
    color_times, color = _stamped(path, "r-*.ppm")
    chosen = synchronised(depth_times, color_times)
    late = int((np.abs(color_times[chosen] - depth_times) > APART).sum())
    if late > MOST * len(depth):
        raise ValueError(
            f"{path}: {late} of {len(depth)} depth images have no colour image within {APART} s; are both of one "
            f"recording?"
        )
    notes = [] if camera else [f"{path}: the cameras are taken for those of NYUv2's toolbox"]
    notes += [f"{path}: {late} of {len(depth)} depth images have no colour image within {APART} s"] * (late > 0)
    camera = COLOR_CAMERA if camera is None else camera
    times, delays = moments(color_times[chosen], depth_times)
    return ImageSequence(
        name=path.resolve().name,
        camera=camera.undistorted(),
        lens=camera,
        timestamps=times,
        color_paths=tuple(color[i] for i in chosen),
        depth_paths=tuple(depth),
        read_color=images.undistorting(images.ColorReader(tuple(color)), camera),
        read_depth=partial(read_projected_depth, color_camera=camera.undistorted()),
        assumptions=tuple(notes),
        depth_delays=delays,
    )


def synchronised(depth_times: np.ndarray, color_times: np.ndarray) -> np.ndarray:
    """The colour image of each depth image, as get_synched_frames.m picks it: (N,) indices, never going back.

    From the last one taken it goes on while the next colour image is not further from the depth image.
    """
    chosen = np.zeros(len(depth_times), np.int64)
    at = 0
    for i, time in enumerate(depth_times):
        while at + 1 < len(color_times) and abs(color_times[at + 1] - time) <= abs(color_times[at] - time):
            at += 1
        chosen[i] = at
    return chosen


def moments(color_times: np.ndarray, depth_times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of frames of colour and depth that were taken at times (N,), seconds: their own times, and depth's delays.

    A frame is of its colour image's time; where that image is the one of the frame before, too, of its depth's. Where
    such times do not increase, all are of depth's.
    """
    again = np.diff(color_times, prepend=-np.inf) <= 0
    times = np.where(again, depth_times, color_times)
    if np.any(np.diff(times) <= 0):
        return depth_times, np.zeros(len(depth_times))
    return times, depth_delays(times, depth_times)


def depth_of_raw(raw: np.ndarray) -> np.ndarray:
    """Metres (..., float32) of raw Kinect disparities: 351.3 / (1092.5 - raw), 0 = none, 10 m at most."""
    with np.errstate(divide="ignore"):
        depth = 351.3 / (1092.5 - raw.astype(np.float64))
    valid = (raw >= SMALLEST_RAW) & (raw < NO_READING) & (depth >= 0)
    return np.where(valid, np.minimum(depth, FARTHEST), 0).astype(np.float32)


def projected_depth(raw: np.ndarray, color_camera: Camera) -> np.ndarray:
    """Depth (H, W) float32 m under the pixels of the undistorted colour image, of raw disparities (H, W) uint16.

    In the order of the toolbox (project_depth_map.m): disparities are undistorted, bilinearly; whatever a pixel
    without a reading touches is noise; the rest becomes metres, is projected into the colour camera, and the nearest
    stays. It stores the depth camera's z, and leaves the last column and row empty.
    """
    from sequences.recordings.registration_kernels import undistorted_disparities

    if raw.shape != DEPTH_CAMERA.shape:
        return depth_of_raw(raw)
    # OpenCV's interpolation knows 32 steps from pixel to pixel, which at 4 m is half a millimetre even on a wall
    disparity = undistorted_disparities(raw, _distorted_places(), raw.max(), float(NO_READING))
    depth = depth_of_raw(disparity)
    projected = registered_depth(depth, DEPTH_CAMERA, color_camera, T_COLOR_DEPTH, keep_z=True)
    projected[-1] = projected[:, -1] = 0
    return projected


@cache
def _distorted_places() -> np.ndarray:
    """(2, H, W) row and column of the recorded image that each pixel of the undistorted one shows, in the toolbox.

    There the principal point stands for pixels counted from 0, unlike in the projection.
    """
    import cv2

    camera = replace(DEPTH_CAMERA, cx=DEPTH_CAMERA.cx + 1, cy=DEPTH_CAMERA.cy + 1)
    size = (camera.width, camera.height)
    maps = cv2.initUndistortRectifyMap(camera.K, np.asarray(camera.distortion), None, camera.K, size, cv2.CV_32FC1)
    return np.stack(maps[::-1]).astype(np.float64)


def read_projected_depth(path: Path, color_camera: Camera = COLOR_CAMERA.undistorted()) -> np.ndarray:  # noqa: B008
    """Depth (H, W) float32 m of a d-*.pgm under the pixels of the undistorted colour image."""
    # The payload is little-endian, whereas a PGM's should be big-endian and is read as such.
    return projected_depth(images.read_uint16(path).byteswap(), color_camera)


def _stamped(folder: Path, pattern: str) -> tuple[np.ndarray, list[Path]]:
    """Times (N,) in seconds since 1970 and files, in the order of time."""
    entries = []
    for file in folder.glob(pattern):
        match = re.match(r"[a-z]-([0-9]+\.[0-9]+)-[0-9]+$", file.stem)
        if match is None:
            raise ValueError(f"{file}: the name holds no time; expected {LAYOUT}")
        entries.append((float(match[1]), file))
    entries.sort()
    return np.array([time for time, _ in entries]), [file for _, file in entries]
