"""Polycam's raw export: keyframes/ with images/, cameras/, depth/, confidence/ and what its optimisation corrected.

Files are named by their time in microseconds; a camera is a JSON file with fx, fy, cx, cy, width, height and the pose
t_00 .. t_23 in ARKit's axes; depth is uint16 mm, confidence 0, 127 or 255.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from semslam.camera import Camera
from semslam.images import COLOR_SUFFIXES, CorruptFrame
from sequences.clock import seconds_or_count
from sequences.files import MALFORMED, Files, first_readable, is_zip, open_files, reason
from sequences.recordings.cameras.given_camera import camera_of_numbers
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.recordings.phones import arkit

LAYOUT = (
    "keyframes/ with (corrected_)images/TIME.jpg, (corrected_)cameras/TIME.json, depth/TIME.png, confidence/TIME.png"
)
FPS = 2.0
LEAST_CONFIDENCE = 127


def fits(path: Path) -> bool:
    if path.is_dir():
        folder = _keyframes(path)
        return any((folder / f"{kind}cameras").is_dir() for kind in ("", "corrected_"))
    return (
        path.suffix.lower() == ".zip" and is_zip(path, ".json") and open_files(path).root_of("keyframes/") is not None
    )


def open_polycam(
    path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None
) -> DecodedSequence:
    """Open an export, a folder or the zip archive; what the optimisation corrected where it is there."""
    path = Path(path)
    files = open_files(path if path.is_file() else _keyframes(path))
    top = files.root_of("keyframes/") if path.is_file() else ""
    root = f"{top}keyframes/" if path.is_file() else ""
    for kind in ("corrected_", ""):
        colors = files.under(f"{root}{kind}images", COLOR_SUFFIXES)
        cameras = files.under(f"{root}{kind}cameras", (".json",))
        names = [name for name in colors if name in cameras and name.isdecimal()]
        if names:
            break
    else:
        raise ValueError(f"{path}: holds no images with cameras of the same names; expected {LAYOUT}")
    depths = files.under(f"{root}depth", (".png", ".npy", ".tiff"))
    confidences = files.under(f"{root}confidence", (".png",))
    names.sort(key=int)
    height, width = first_readable(files.image, (colors[name] for name in names)).shape[:2]
    own = [_camera(files, cameras[name]) for name in names]
    first = camera or next((found for found, _ in own if isinstance(found, Camera)), None)
    if first is None:
        raise ValueError(str(own[0][0]))
    rig = Rig(first.resized(width, height))
    if depths:
        shape = first_readable(files.depth, depths.values()).shape
        rig = Rig(rig.color, rig.color.resized(shape[1], shape[0]))
    return DecodedSequence(
        name=path.stem,
        rig=rig,
        timestamps=seconds_or_count(np.array([int(name) for name in names]), FPS),
        read=partial(
            _read,
            files,
            [(colors[name], depths.get(name), confidences.get(name)) for name in names],
            None if camera is not None else [of_frame for of_frame, _ in own],
            depth_scale or 1000.0,
        ),
        poses=tuple(T for _, T in own),
    )


def _keyframes(path: Path) -> Path:
    return path / "keyframes" if (path / "keyframes").is_dir() else path


def _read(
    files: Files,
    names: list[tuple[str, str | None, str | None]],
    cameras: list[Camera | CorruptFrame] | None,
    depth_scale: float,
    index: int,
) -> Images:
    color_name, depth_name, confidence_name = names[index]
    camera = None if cameras is None else cameras[index]
    if isinstance(camera, CorruptFrame):
        raise camera
    color = files.image(color_name)
    depth = None if depth_name is None else files.depth(depth_name, depth_scale)
    if depth is not None and confidence_name is not None:
        depth = arkit.trusted(depth, files.units(confidence_name), LEAST_CONFIDENCE)
    height, width = color.shape[:2]
    return Images(color, depth, camera=None if camera is None else camera.resized(width, height))


def _camera(files: Files, name: str) -> tuple[Camera | CorruptFrame, np.ndarray | None]:
    """The camera and T_world_camera of a camera file; what is wrong with it in place of the camera."""
    try:
        values = json.loads(files.read(name))
        size = int(values["width"]), int(values["height"])
        camera = camera_of_numbers(*size, (values[key] for key in ("fx", "fy", "cx", "cy")))
        T = np.eye(4)
        T[:3] = [[float(values[f"t_{row}{column}"]) for column in range(4)] for row in range(3)]
    except MALFORMED as problem:
        expected = "expected Polycam's width, height, fx .. cy and t_00 .. t_23"
        return CorruptFrame(f"{files.where(name)}: {expected} ({reason(problem)})", broken_file=True), None
    return camera, arkit.camera_to_world(T)
