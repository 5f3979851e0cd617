"""Depth of driving data sets: from a rectified stereo pair, and from a lidar's points."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from semslam import images, poses
from semslam.camera import Camera
from semslam.images import CorruptFrame
from sequences.recordings.decoded import Images

FARTHEST = 80.0  # metres, as the field caps KITTI's depth
DISPARITIES = 128  # pixels, a multiple of 16: with KITTI's baseline, from 3 m on


DepthOf = Callable[[str, np.ndarray], np.ndarray]  # depth (H, W) of a frame's name and colour image


def read_frame(files: list[Path], depth: DepthOf | None, index: int) -> Images:
    """The left image and, where there is any, its depth."""
    color = images.read_color(files[index])
    return Images(color, None if depth is None else depth(files[index].stem, color))


def of_lidar(folder: Path, camera: Camera, T_camera_lidar: np.ndarray, name: str, color: np.ndarray) -> np.ndarray:
    """Depth (H, W) from the scan of a frame in a folder of Velodyne files; CorruptFrame where there is none."""
    return lidar_depth(read_scan(folder / f"{name}.bin"), camera, T_camera_lidar)


def of_stereo(right: dict[str, Path], focal_baseline: float, name: str, color: np.ndarray) -> np.ndarray:
    """Depth (H, W) from the right image of a frame; CorruptFrame where there is none."""
    if name not in right:
        raise CorruptFrame(f"{next(iter(right.values())).parent}: the right image of frame {name} is missing", True)
    return stereo_depth(color, images.read_color(right[name]), focal_baseline)


def stereo_depth(left: np.ndarray, right: np.ndarray, focal_baseline: float) -> np.ndarray:
    """Depth (H, W) float32 m under the pixels of the left image (H, W, 3) of a rectified pair; 0 = none.

    Semi-global matching (Hirschmueller, "Stereo processing by semiglobal matching and mutual information", PAMI 2008)
    as OpenCV has it, with a check of left against right. `focal_baseline`: pixels times metres.
    """
    import cv2

    if left.shape != right.shape:
        raise CorruptFrame(
            f"the left image is {left.shape[1]}x{left.shape[0]}, the right {right.shape[1]}x{right.shape[0]}"
        )
    greys = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in (left, right)]
    block = 5
    matcher = cv2.StereoSGBM_create(  # type: ignore[attr-defined]
        0, DISPARITIES, block, P1=8 * block**2, P2=32 * block**2, disp12MaxDiff=1, uniquenessRatio=10,
        speckleWindowSize=100, speckleRange=2,
    )  # fmt: skip
    disparity = matcher.compute(*greys) * np.float32(1 / 16)  # it counts sixteenths
    depth = np.float32(focal_baseline) / np.maximum(disparity, np.float32(1e-3))
    return np.where((disparity > 0) & (depth < FARTHEST), depth, np.float32(0))


def read_scan(path: Path) -> np.ndarray:
    """(N, 3) float32 points, metres, of a Velodyne file of x, y, z, reflectance."""
    data = images.image_bytes(path)
    if not data or len(data) % 16:
        raise CorruptFrame(f"{path}: {len(data)} bytes are no whole number of points (4 floats each)", broken_file=True)
    points = np.frombuffer(data, "<f4").reshape(-1, 4)[:, :3]
    return points[np.isfinite(points).all(axis=1)]


def lidar_depth(points: np.ndarray, camera: Camera, T_camera_lidar: np.ndarray) -> np.ndarray:
    """Depth (H, W) float32 m of a lidar's points (N, 3) in a camera; each on one pixel, the nearest wins; 0 = none."""
    from sequences.recordings.registration_kernels import splat_nearest

    points = poses.transform(T_camera_lidar, points.astype(np.float64))
    points = points[(points[:, 2] > 0.1) & (points[:, 2] < FARTHEST)]
    pixels = camera.project(points).astype(np.float32)
    z = points[:, 2].astype(np.float32)
    return splat_nearest(np.ascontiguousarray(pixels[:, 0]), np.ascontiguousarray(pixels[:, 1]), z, z, *camera.shape)
