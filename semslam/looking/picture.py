"""A map as a picture with its legend, without a display."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.cloud import CloudInParts, SurfelCloud
from semslam.looking.viewed import Viewed, shown_range
from semslam.looking.window import MapWindow
from semslam.rendering.legend import legend_entries
from semslam.rendering.pictures import (
    SAMPLE,
    draw_paths,
    lit_if_flat,
    picture,
    picture_camera,
    picture_format,
    picture_in_parts,
    write_figure,
)
from semslam.rendering.viewpoint import overview, up_direction

logger = logging.getLogger(__name__)
OF_EACH_SURFEL = ("color", "label", "normal", "entropy")  # colorings for which a surfel's own values are enough


def render_png(
    path: str | Path,
    viewed: Viewed,
    *,
    coloring: str = "label",
    hidden: Collection[str] = (),
    beside: Sequence[Viewed] = (),
) -> None:
    """Write a picture of the map with its legend, seen from outside.

    `coloring` is a name of COLORINGS, or error; surfels of the classes named in `hidden` are left out. `beside`: other
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
    sample = viewed.cloud if viewed.all_of_it is None else viewed.all_of_it.sample(SAMPLE)
    up = up_direction(sample, viewed.label_set, viewed.trajectory)
    T_world_camera = overview(sample, camera, up, trajectory=viewed.trajectory)
    if any(one.all_of_it is not None for one in maps) and coloring in OF_EACH_SURFEL:
        images = [_image_in_parts(one, coloring, T_world_camera, camera) for one in maps]
    else:
        images = _images(maps, coloring, T_world_camera, camera)
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


def _image_in_parts(viewed: Viewed, coloring: str, T_world_camera: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W, 3) uint8 of all surfels of a map that is too large for memory."""
    clouds = viewed.all_of_it or CloudInParts.of(viewed.cloud)

    def colors_of(part: SurfelCloud) -> list[np.ndarray]:
        return [_shown_colors(replace(viewed, cloud=part), coloring, T_world_camera)]

    return picture_in_parts(clouds, camera, T_world_camera, colors_of)[0]


def _images(maps: Sequence[Viewed], coloring: str, T_world_camera: np.ndarray, camera: Camera) -> list[np.ndarray]:
    """(H, W, 3) uint8 of each map, by Open3D or, without a driver, by our own renderer."""
    try:
        return [_opengl_image(one, coloring, T_world_camera, camera) for one in maps]
    except RuntimeError as error:
        logger.warning("%s; drawing with the software renderer instead", error)
        return [
            picture(one.cloud, camera, T_world_camera, [_shown_colors(one, coloring, T_world_camera)])[0]
            for one in maps
        ]


def _shown_colors(viewed: Viewed, coloring: str, T_world_camera: np.ndarray) -> np.ndarray:
    return lit_if_flat(viewed.colored(coloring), coloring, viewed.cloud, T_world_camera)


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
