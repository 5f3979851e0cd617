"""What a recording says of its sensor, and how its images are read by that.

What the command line says counts first, then a camera.yaml beside the images, then what the layout usually holds. What
was taken from the layout alone is an assumption, which a sequence hands on for people to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.frame import UNLABELLED
from semslam.images import labels as label_images
from sequences.recordings.registration import registered_depth
from sequences.resampling import z_of_ray


class DepthCamera(NamedTuple):
    """The camera that depth was recorded with, where it is not registered to colour."""

    camera: Camera
    T_color_depth: np.ndarray  # (4, 4) float64


class SaidOfSensor(NamedTuple):
    """What a camera.yaml or a person says of the sensor of recorded images; None for what is left to the layout."""

    camera: Camera | None = None  # of colour
    depth_scale: float | None = None  # units per metre
    registered: bool | None = None  # whether depth lies under colour's pixels
    depth_along_ray: bool | None = None  # whether depth is the distance from the optical centre instead of z
    depth_camera: DepthCamera | None = None

    def unregistered(self, path: Path, usual: DepthCamera | None = None) -> DepthCamera | None:
        """The camera that depth has to be registered from, None where it is registered.

        usual: the depth camera of the layout, which is taken where nobody says anything. ValueError, which names the
        recording's path, where depth is said to be unregistered and its camera is not known.
        """
        if self.registered or (self.registered is None and self.depth_camera is None and usual is None):
            return None
        if (found := self.depth_camera or usual) is None:
            raise ValueError(
                f"{path}: --unregistered needs the depth camera; write depth_camera (width, height, fx, fy, cx, cy) "
                f"and T_color_depth (4x4, from its coordinates to those of colour) into camera.yaml"
            )
        return found


NOTHING_SAID = SaidOfSensor()


def image_readers(
    color: Iterable[Path],
    camera: Camera,
    read_depth: Callable[[Path], np.ndarray],
    unregistered: DepthCamera | None = None,
    read_labels: Callable[[Path], np.ndarray] = label_images.read_labels,
    along_ray: bool = False,
) -> dict[str, Any]:
    """The cameras and the reading functions of an `ImageSequence` whose images are those of `camera`, undistorted.

    color: the files of its colour images. read_depth: metres (H, W) as recorded. unregistered: the camera that depth
    comes from, if it is not colour's own. along_ray: what is read are distances from the optical centre.
    """
    if along_ray:
        read_depth = partial(_read_ray, read_depth, camera if unregistered is None else unregistered.camera)
    if unregistered is None:
        depth = images.undistorting(read_depth, camera, nearest=True)
    else:
        depth = partial(_read_registered, read_depth, unregistered, camera.undistorted())
    return {
        "camera": camera.undistorted(),
        "lens": camera,
        "read_color": images.undistorting(images.ColorReader(tuple(color)), camera),
        "read_depth": depth,
        "read_labels": images.undistorting(read_labels, camera, nearest=True, outside=UNLABELLED),
    }


class Usual(NamedTuple):
    """What the recordings of a layout hold where nobody says otherwise."""

    camera: Camera
    whose: str | None  # camera that is, for people; None = the recording says so itself
    depth_scale: float  # units per metre


def usual_readers(
    path: Path, color: Iterable[Path], depth: Iterable[Path], usual: Usual, said: SaidOfSensor
) -> tuple[dict[str, Any], list[str]]:
    """`image_readers` by what is said of the sensor of the recording at a path, else by what is usual; and what was
    taken for granted.

    color, depth: the recording's files.
    """
    assumed = []
    if said.camera is None and usual.whose is not None:
        numbers = " ".join(
            f"{number:g}" for number in (usual.camera.fx, usual.camera.fy, usual.camera.cx, usual.camera.cy)
        )
        assumed.append(f"{path}: the camera is taken for {usual.whose} ({numbers})")
    if said.depth_scale is None:
        assumed.append(
            f"{path}: depth is taken to count {usual.depth_scale:g} per metre (--depth-scale says otherwise)"
        )
    read_depth = images.DepthReader(tuple(depth), said.depth_scale or usual.depth_scale)
    readers = image_readers(
        color,
        said.camera or usual.camera,
        read_depth,
        said.unregistered(path),
        along_ray=bool(said.depth_along_ray),
    )
    return readers, assumed


def _read_ray(read: Callable[[Path], np.ndarray], camera: Camera, path: Path) -> np.ndarray:
    ray = read(path)
    return z_of_ray(ray, camera.resized(ray.shape[1], ray.shape[0]))


def _read_registered(
    read_depth: Callable[[Path], np.ndarray], depth_camera: DepthCamera, color_camera: Camera, path: Path
) -> np.ndarray:
    depth, source = read_depth(path), depth_camera.camera
    if depth.shape != source.shape:
        raise images.CorruptFrame(
            f"{path}: depth is {depth.shape[1]}x{depth.shape[0]}, its camera's is {source.width}x{source.height}"
        )
    undistorted = source.undistort(depth, nearest=True)
    return registered_depth(undistorted, source.undistorted(), color_camera, depth_camera.T_color_depth)
