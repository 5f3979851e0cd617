"""Replica, as NICE-SLAM and as Semantic-NeRF rendered it.

NICE-SLAM: results/frame000000.jpg and depth000000.png, traj.txt. Semantic-NeRF: rgb/rgb_0.png, depth/depth_0.png,
semantic_class/, traj_w_c.txt. Poses are 4x4 row by row, camera to world, x right, y down, z forward. Zhu et al.,
"NICE-SLAM", CVPR 2022; Zhi et al., "In-place scene labelling and understanding", ICCV 2021.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.files.reading import text_of
from semslam.images import labels as label_images
from semslam.trajectory.files import read_kitti
from sequences.files import MALFORMED, first_readable, reason
from sequences.recordings.cameras.given_camera import camera_of_numbers
from sequences.sequence import ImageSequence

NICE_SLAM_LAYOUT = "results/frame000000.jpg, results/depth000000.png, traj.txt; cam_params.json (optional)"
SEMANTIC_NERF_LAYOUT = "rgb/rgb_0.png, depth/depth_0.png (mm), traj_w_c.txt, semantic_class_nyu13_remap/ (optional)"
FPS = 30.0
NICE_SLAM_CAMERA = Camera(1200, 680, 600.0, 600.0, 599.5, 339.5)
NICE_SLAM_SCALE = 6553.5  # units per metre
NERF_LABELS = {"semantic_class_nyu40_remap": "nyu40", "semantic_class_nyu13_remap": "nyu13"}


def fits_nice_slam(path: Path) -> bool:
    return (path / "traj.txt").is_file() and (path / "results").is_dir()


def fits_semantic_nerf(path: Path) -> bool:
    return (path / "traj_w_c.txt").is_file() and (path / "rgb").is_dir()


def open_nice_slam(
    path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None
) -> ImageSequence:
    """Open a scene of NICE-SLAM's renders; camera and depth scale from cam_params.json in or above it, where it is."""
    path = Path(path)
    written, scale = _cam_params(path)
    return _opened(
        path,
        (_numbered(path / "results", r"frame(\d+)\.(?:jpg|png)$"), _numbered(path / "results", r"depth(\d+)\.png$")),
        path / "traj.txt",
        written if camera is None else camera,
        scale if depth_scale is None else depth_scale,
    )


def open_semantic_nerf(
    path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None
) -> ImageSequence:
    """Open a sequence of Semantic-NeRF's renders, 90 degrees wide. Labels where they come as NYU's 40 or 13 classes."""
    path = Path(path)
    color = _numbered(path / "rgb", r"rgb_(\d+)\.(?:png|jpg)$")
    if camera is None and color:
        height, width = first_readable(images.read_color, color.values()).shape[:2]
        camera = Camera(width, height, width / 2, width / 2, (width - 1) / 2, (height - 1) / 2)
    labels = next((name for name in NERF_LABELS if (path / name).is_dir()), None)
    sequence = _opened(
        path,
        (color, _numbered(path / "depth", r"depth_(\d+)\.png$")),
        path / "traj_w_c.txt",
        camera,
        depth_scale or 1000.0,
    )
    if labels is None:
        return sequence
    from dataclasses import replace

    files = _numbered(path / labels, r"semantic_class_(\d+)\.png$")
    return replace(
        sequence,
        label_paths=tuple(files.get(number) for number in sorted(color)),
        label_set=NERF_LABELS[labels],
        read_labels=partial(label_images.read_labels, classes=NERF_LABELS[labels]),
    )


def _opened(
    path: Path,
    files: tuple[dict[int, Path], dict[int, Path]],
    trajectory: Path,
    camera: Camera | None,
    depth_scale: float,
) -> ImageSequence:
    color, depth = files
    if not color or camera is None:
        raise ValueError(f"{path}: holds no images; expected {NICE_SLAM_LAYOUT}, or {SEMANTIC_NERF_LAYOUT}")
    numbers = sorted(color)
    truth = read_kitti(trajectory, fps=1.0).T_world_camera
    if numbers[-1] >= len(truth):
        raise ValueError(f"{trajectory}: {len(truth)} poses, but there is an image of number {numbers[-1]}")
    return ImageSequence(
        name=path.resolve().name,
        camera=camera,
        timestamps=np.array(numbers) / FPS,
        color_paths=tuple(color[number] for number in numbers),
        depth_paths=tuple(depth.get(n, color[n].with_name(f"depth of frame {n}")) for n in numbers) if depth else None,
        poses=tuple(truth[number] for number in numbers),
        read_depth=partial(images.read_depth, depth_scale=depth_scale),
    )


def _numbered(folder: Path, pattern: str) -> dict[int, Path]:
    """Files of a folder by the number in their names."""
    if not folder.is_dir():
        return {}
    found = ((re.match(pattern, file.name), file) for file in folder.iterdir())
    return {int(match[1]): file for match, file in found if match}


def _cam_params(path: Path) -> tuple[Camera, float]:
    for file in (path / "cam_params.json", path.resolve().parent / "cam_params.json"):
        if file.is_file():
            try:
                values = json.loads(text_of(file))["camera"]
                size = int(values["w"]), int(values["h"])
                return camera_of_numbers(*size, (values[k] for k in ("fx", "fy", "cx", "cy"))), float(values["scale"])
            except MALFORMED as problem:
                raise ValueError(f"{file}: expected camera: w, h, fx, fy, cx, cy, scale ({reason(problem)})") from None
    return NICE_SLAM_CAMERA, NICE_SLAM_SCALE
