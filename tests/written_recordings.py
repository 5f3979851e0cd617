"""Recordings written as devices write them, of the synthetic room, whose truth is known."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from semslam.camera import Camera
from semslam.frame import Frame
from sequences.room.room import RoomSequence
from sequences.sequence import Sequence


def room_frames(count: int = 4, width: int = 96, height: int = 72) -> list[Frame]:
    return list(RoomSequence(frames=count, width=width, height=height))


def encoded(suffix: str, image: np.ndarray) -> bytes:
    """An image file's bytes: RGB or one channel."""
    image = image[..., ::-1] if image.ndim == 3 else image
    ok, data = cv2.imencode(suffix, image, [cv2.IMWRITE_JPEG_QUALITY, 98] if suffix == ".jpg" else [])
    assert ok
    return data.tobytes()


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def millimetres(depth: np.ndarray, scale: float = 1000.0) -> np.ndarray:
    return np.rint(depth * scale).astype(np.uint16)


def halved(depth: np.ndarray) -> np.ndarray:
    """Depth of half the size, each value of one pixel: what a coarser sensor of the same view sees."""
    return np.ascontiguousarray(depth[::2, ::2])


def half_camera(camera: Camera) -> Camera:
    """The camera of a `halved` image, whose pixels sit on the even ones of the whole image."""
    return Camera(camera.width // 2, camera.height // 2, camera.fx / 2, camera.fy / 2, camera.cx / 2, camera.cy / 2)


def write_video(path: Path, frames: list[Frame], fps: float = 30.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].color.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    for frame in frames:
        writer.write(np.ascontiguousarray(frame.color[..., ::-1]))
    writer.release()


def assert_like_the_room(
    sequence: Sequence, truth: list[Frame], color: float = 4.0, depth: float = 1e-3, poses: bool = True
) -> None:
    """Frames agree with the room's: colour within compression on average, depth nearly everywhere, poses exactly.

    depth: metres, of 97 % of the pixels that have a reading; they must be 97 % of the image.
    """
    assert len(sequence) == len(truth)
    for read, true in zip(sequence, truth):
        assert read.color.shape == true.color.shape and read.color.dtype == np.uint8
        assert np.abs(read.color.astype(int) - true.color).mean() < color
        if depth:
            assert read.depth is not None and read.depth.dtype == np.float32
            there = (read.depth > 0) & (true.depth > 0)
            assert there.mean() > 0.97 * (true.depth > 0).mean()
            assert np.quantile(np.abs(read.depth - true.depth)[there], 0.97) < depth
        if poses:
            np.testing.assert_allclose(read.T_world_camera, true.T_world_camera, atol=1e-5)


# A room in the layouts of files and lists, with depth in `scale` units per metre


def as_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1] if image.ndim == 3 else image)


def units(frame, scale: float) -> np.ndarray:
    return np.rint(frame.depth * scale).astype(np.uint16)


def as_tum(room: RoomSequence, path: Path, scale: float) -> Path:
    for i, frame in enumerate(room):
        as_png(path / "rgb" / f"{i}.png", frame.color)
        as_png(path / "depth" / f"{i}.png", units(frame, scale))
    for name in ("rgb", "depth"):
        (path / f"{name}.txt").write_text("".join(f"{i / 30:.4f} {name}/{i}.png\n" for i in range(len(room))))
    return path


def as_associations(room: RoomSequence, path: Path, scale: float) -> Path:
    as_tum(room, path, scale)
    lines = [f"{i / 30:.4f} rgb/{i}.png {i / 30 + 0.001:.4f} depth/{i}.png\n" for i in range(len(room))]
    (path / "associations.txt").write_text("".join(lines))
    for name in ("rgb", "depth"):
        (path / f"{name}.txt").unlink()
    return path


def as_icl(room: RoomSequence, path: Path, scale: float) -> Path:
    as_tum(room, path / "living_room_traj0", scale)
    path = path / "living_room_traj0"
    (path / "associations.txt").write_text("".join(f"{i} depth/{i}.png {i} rgb/{i}.png\n" for i in range(len(room))))
    for name in ("rgb", "depth"):
        (path / f"{name}.txt").unlink()
    return path


def as_seven_scenes(room: RoomSequence, path: Path, scale: float) -> Path:
    for i, frame in enumerate(room):
        as_png(path / f"frame-{i:06d}.color.png", frame.color)
        as_png(path / f"frame-{i:06d}.depth.png", units(frame, scale))
        np.savetxt(path / f"frame-{i:06d}.pose.txt", frame.T_world_camera)
    return path


def as_open3d(room: RoomSequence, path: Path, scale: float) -> Path:
    for i, frame in enumerate(room):
        as_png(path / "rgb" / f"{i}.png", frame.color)
        as_png(path / "depth" / f"{i}.png", units(frame, scale))
    (path / "trajectory.log").write_text("0 0 1\n1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    return path


def as_png_list(room: RoomSequence, path: Path, scale: float) -> Path:
    for i, frame in enumerate(room):
        as_png(path / f"{i}rgb.png", frame.color)
        as_png(path / f"{i}depth.png", units(frame, scale))
    (path / "list.txt").write_text("".join(f"{33 * i} {i}depth.png {i}rgb.png d r\n" for i in range(len(room))))
    return path / "list.txt"
