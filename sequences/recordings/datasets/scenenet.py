"""SceneNet RGB-D: photo/0.jpg, depth/0.png (mm along the ray), poses in a protobuf file above.

McCormac et al., "SceneNet RGB-D: can 5M synthetic images beat generic ImageNet pre-training on indoor segmentation?",
ICCV 2017. Views are 25 frame numbers apart, a second; a view has a camera and a point it looks at when the shutter
opens and when it closes, of which the mean is taken. Its instance labels are left out.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semslam import poses
from semslam.camera import Camera
from sequences.files import Folder, first_readable
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.recordings.folder import images_by_name
from sequences.resampling import z_of_ray

LAYOUT = "photo/0.jpg, depth/0.png (mm along the ray); scenenet_rgbd_*.pb in one of the folders above"
FPS = 25.0
WIDTH_ANGLE, HEIGHT_ANGLE = math.radians(60), math.radians(45)
LARGEST_FILE = 1 << 30  # bytes


def fits(path: Path) -> bool:
    return (path / "photo").is_dir() and (path / "depth").is_dir()


def open_scenenet(path: str | Path, *, camera: Camera | None = None) -> DecodedSequence:
    """Open a trajectory's folder. Without the protobuf file there are no poses."""
    path = Path(path)
    files = Folder(path)
    color = {
        int(name): f"photo/{file.name}" for name, file in images_by_name(path / "photo").items() if name.isdecimal()
    }
    if not color:
        raise ValueError(f"{path / 'photo'}: holds no images; expected {LAYOUT}")
    numbers = sorted(color)
    height, width = first_readable(files.image, (color[n] for n in numbers)).shape[:2]
    if camera is None:
        fx, fy = width / 2 / math.tan(WIDTH_ANGLE / 2), height / 2 / math.tan(HEIGHT_ANGLE / 2)
        camera = Camera(width, height, fx, fy, (width - 1) / 2, (height - 1) / 2)
    views = _views(path)
    return DecodedSequence(
        name="_".join(path.resolve().parts[-2:]),
        rig=Rig(camera, camera),
        timestamps=np.array(numbers) / FPS,
        read=partial(_read, files, [(number, color[number]) for number in numbers], camera),
        poses=None if views is None else tuple(views.get(number) for number in numbers),
    )


def _read(files: Folder, names: list[tuple[int, str]], camera: Camera, index: int) -> Images:
    number, color = names[index]
    ray = files.depth(f"depth/{number}.png")
    return Images(files.image(color), z_of_ray(ray, camera) if ray.shape == camera.shape else ray)


def _views(path: Path) -> dict[int, np.ndarray] | None:
    """T_world_camera by frame number, of the trajectory whose render path ends the folder's; None where none does."""
    resolved = path.resolve()
    for folder in resolved.parents[:4]:
        for file in sorted(folder.glob("*.pb")):
            if file.stat().st_size > LARGEST_FILE:
                raise ValueError(f"{file}: {file.stat().st_size} bytes are more than SceneNet's files have")
            for trajectory in (value for number, value in fields(file.read_bytes(), file) if number == 1):
                parts = list(fields(trajectory, file))
                render = next((bytes(value).decode("utf-8", "replace") for number, value in parts if number == 4), "")
                if render and resolved.as_posix().endswith("/" + render.strip("/")):
                    return dict(_view(value, file) for number, value in parts if number == 3)
    return None


def _view(data: bytes, file: Path) -> tuple[int, np.ndarray]:
    """The frame number and T_world_camera of a view."""
    values = dict(fields(data, file))
    shutters = [dict(fields(values[number], file)) for number in (2, 3) if number in values]
    if not shutters:
        raise ValueError(f"{file}: a view has no camera; expected SceneNet's trajectories")
    position = np.mean([_point(shutter.get(1, b""), file) for shutter in shutters], axis=0)
    target = np.mean([_point(shutter.get(2, b""), file) for shutter in shutters], axis=0)
    z = target - position
    z = z / max(float(np.linalg.norm(z)), 1e-12)
    x = np.cross(z, [0.0, 1.0, 0.0])
    x = x / max(float(np.linalg.norm(x)), 1e-12)
    return int(values.get(1, 0)), poses.from_rotation_translation(np.stack([x, np.cross(z, x), z], axis=1), position)


def _point(data: bytes, file: Path) -> np.ndarray:
    values = dict(fields(data, file))
    return np.array([struct.unpack("<f", values.get(number, bytes(4)))[0] for number in (1, 2, 3)], np.float64)


def fields(data: Any, file: Path) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a protobuf message: whole numbers, or the bytes of floats, texts and messages."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise IndexError

    try:
        while at < len(data):
            key = varint()
            if key & 7 == 0:
                yield key >> 3, varint()
                continue
            size = {1: 8, 5: 4}.get(key & 7) or (varint() if key & 7 == 2 else -1)
            if size < 0 or at + size > len(data):
                raise IndexError
            yield key >> 3, data[at : at + size]
            at += size
    except (IndexError, TypeError):
        raise ValueError(f"{file}: is no protobuf file, or is damaged; expected SceneNet's trajectories") from None
