"""One scene of SUN RGB-D: image/, depth_bfx/, intrinsics.txt. A sequence of one frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.files.reading import text_of
from sequences.recordings.folder import images_by_name
from sequences.recordings.sensor import NOTHING_SAID, SaidOfSensor, image_readers
from sequences.sequence import ImageSequence

LAYOUT = "image/NAME.jpg, depth_bfx/NAME.png (rotated by 3 bits), intrinsics.txt"
FARTHEST = 8.0  # metres, as the toolbox clips


def fits(path: Path) -> bool:
    return (path / "intrinsics.txt").is_file() and (path / "image").is_dir()


def open_sun_rgbd(
    path: str | Path,
    *,
    said: SaidOfSensor = NOTHING_SAID,
) -> ImageSequence:
    """Open a scene folder; the in-painted depth (depth_bfx) where there is one, else depth."""
    path = Path(path)
    color = list(images_by_name(path / "image").values())
    depth = list(images_by_name(path / "depth_bfx").values()) or list(images_by_name(path / "depth").values())
    if len(color) != 1 or len(depth) != 1:
        raise ValueError(f"{path}: {len(color)} images and {len(depth)} depth maps, expected one of each; {LAYOUT}")
    if (camera := said.camera) is None:
        try:
            K = np.array(text_of(path / "intrinsics.txt").split(), np.float64)[:9].reshape(3, 3)
        except ValueError:
            raise ValueError(f"{path / 'intrinsics.txt'}: expected the 9 numbers of a 3x3 matrix") from None
        height, width = images.read_color(color[0]).shape[:2]
        camera = Camera(width, height, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))
    return ImageSequence(
        name=path.resolve().name,
        timestamps=np.zeros(1),
        color_paths=tuple(color),
        depth_paths=tuple(depth),
        **image_readers(
            color,
            camera,
            read_rotated_depth,
            said.unregistered(path),
            along_ray=bool(said.depth_along_ray),
        ),
    )


def read_rotated_depth(path: Path) -> np.ndarray:
    """Depth (H, W) float32 m of a PNG whose 16 bits are millimetres rotated left by three."""
    rotated = images.read_uint16(path)
    millimetres = (rotated >> 3) | (rotated << 13)
    return np.minimum(millimetres * np.float32(1e-3), np.float32(FARTHEST))
