"""A map as a picture with its legend, without a display."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.looking.viewed import Viewed, shown_range
from semslam.looking.window import MapWindow
from semslam.rendering.pictures import draw_paths, legend_entries, picture, picture_camera, picture_format, write_figure
from semslam.rendering.splatting import lit
from semslam.rendering.viewpoint import overview, up_direction

logger = logging.getLogger(__name__)


def render_png(
    path: str | Path,
    viewed: Viewed,
    *,
    coloring: str = "label",
    hidden: Collection[int] = (),
    beside: Sequence[Viewed] = (),
) -> None:
    """Write a picture of the map with its legend, seen from outside.

    `coloring` is a name of COLORINGS, or error; surfels of the class ids in `hidden` are left out. `beside`: other
    maps, seen from the same pose. Drawn by Open3D over EGL; where there is no driver for it by our own renderer, which
    a warning says. ValueError where there is nothing to draw.
    """
    picture_format(path)  # a wrong one is said before the work
    camera = picture_camera(1280, 960)
    maps = [one.without(hidden) for one in (viewed, *beside)]
    viewed = maps[0]
    for one in maps:
        if len(one.cloud) == 0:
            raise ValueError(f"{path}: there is nothing to draw: the map is empty or all of its classes are hidden")
    up = up_direction(viewed.cloud, viewed.label_set, viewed.trajectory)
    T_world_camera = overview(viewed.cloud, camera, up, trajectory=viewed.trajectory)
    try:
        images = [_opengl_image(one, coloring, T_world_camera, camera) for one in maps]
    except RuntimeError as error:
        logger.warning("%s; drawing with the software renderer instead", error)
        images = [
            picture(one.cloud, camera, T_world_camera, [_shown_colors(one, coloring, T_world_camera)])[0]
            for one in maps
        ]
    for k, one in enumerate(maps):
        images[k] = draw_paths(images[k], camera, T_world_camera, one.paths)
    legend = dict(entry for one in reversed(maps) for entry in legend_entries(one.cloud, one.label_set))
    if beside:  # shares of two maps do not fit one legend
        legend = {name.split("  ")[0]: color for name, color in legend.items()}
    note = " ".join(filter(None, (f"{coloring.replace('_', ' ')}:", shown_range(coloring))))
    write_figure(
        path,
        images,
        title="   |   ".join(one.name for one in maps),
        note=note if shown_range(coloring) else "",
        legend=list(legend.items()) if coloring == "label" else [],
    )


def _shown_colors(viewed: Viewed, coloring: str, T_world_camera: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 colours; those of classes are lit, so that flat areas show their shape."""
    colors = viewed.colored(coloring)
    return lit(colors, viewed.cloud, T_world_camera) if coloring == "label" else colors


def _opengl_image(viewed: Viewed, coloring: str, T_world_camera: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W, 3) uint8 by Open3D's window, off-screen; RuntimeError where there is no driver."""
    import cv2

    window = MapWindow(viewed, width=2 * camera.width, height=2 * camera.height, visible=False)
    try:
        window.switch(replace(window.switches, path=False, disks=True))
        window.paint(_shown_colors(viewed, coloring, T_world_camera))
        window.look_from(T_world_camera)
        window.poll()
        image = window.image()
    finally:
        window.close()
    return cv2.resize(image, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
