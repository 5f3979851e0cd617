"""A picture of a map with the cameras that were found in it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from semslam import poses
from semslam.camera import Camera
from semslam.cloud import CloudInParts
from semslam.frame import evenly_spread
from semslam.labels import LabelSet
from semslam.rendering.pictures import SAMPLE, picture_camera, picture_in_parts, write_figure
from semslam.rendering.viewpoint import overview, pyramid_depth, up_direction

MOST = 60  # cameras that are drawn, evenly spread
UNSURE, SURE = np.array([214, 40, 40]), np.array([30, 140, 60])  # colours of confidence 0 and 1


def draw_cameras_in_map(
    path: str | Path, clouds: CloudInParts, label_set: LabelSet, T_world_camera: np.ndarray, confidence: np.ndarray
) -> None:
    """Write the map from outside with cameras as pyramids, from red, confidence 0, to green, 1.

    T_world_camera: (N, 4, 4), N > 0. confidence: (N,) in 0..1. OSError where the file cannot be written.
    """
    camera = picture_camera()
    sample = clouds.sample(SAMPLE)
    up = up_direction(sample, label_set, T_world_camera)
    T_world_view = overview(sample, camera, up, trajectory=T_world_camera)
    image = picture_in_parts(clouds, camera, T_world_view, lambda part: [part.colors])[0]
    depth = pyramid_depth(sample)
    shown = evenly_spread(range(len(T_world_camera)), MOST)
    for k in shown:
        color = UNSURE + confidence[k] * (SURE - UNSURE)
        T_view_camera = poses.inverse(T_world_view) @ T_world_camera[k]
        _draw_pyramid(image, camera, T_view_camera, depth, tuple(int(c) for c in color))
    note = f"{len(T_world_camera)} cameras found" + (
        f", {len(shown)} drawn" if len(shown) < len(T_world_camera) else ""
    )
    legend = [(f"confidence {value:g}", tuple((UNSURE + value * (SURE - UNSURE)).astype(int))) for value in (0, 0.5, 1)]
    write_figure(path, [image], title="Cameras in the map", note=note, legend=legend)


def _draw_pyramid(
    image: np.ndarray, camera: Camera, T_view_camera: np.ndarray, depth: float, color: tuple[int, ...]
) -> None:
    corners = np.array([[0, 0, 0], [-0.6, -0.45, 1], [0.6, -0.45, 1], [0.6, 0.45, 1], [-0.6, 0.45, 1]]) * depth
    points = poses.transform(T_view_camera, corners)
    if (points[:, 2] < 0.05).any():
        return
    pixels = np.round(np.clip(camera.project(points), -30000, 30000) * 16).astype(int)
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]
    for width, stroke in ((4, (255, 255, 255)), (2, color)):
        for a, b in edges:
            cv2.line(image, pixels[a].tolist(), pixels[b].tolist(), stroke, width, cv2.LINE_AA, shift=4)
