"""Record3D: a .r3d file (a zip archive), the same unpacked, or its export as EXR and JPEG files.

metadata (JSON): w, h, dw, dh, fps, K (column by column), poses (quaternion xyzw, position; ARKit's axes), and newer
perFrameIntrinsicCoeffs (fx, fy, cx, cy) and frameTimestamps; rgbd/0.jpg, rgbd/0.depth (float32 m, packed by LZFSE),
rgbd/0.conf (0, 1, 2). The export: metadata.json, rgb/0.jpg, depth/0.exr.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from semslam.camera import Camera
from semslam.images import COLOR_SUFFIXES, CorruptFrame
from sequences.clock import seconds_or_count
from sequences.files import MALFORMED, Files, first_readable, is_zip, open_files, reason
from sequences.recordings.cameras.given_camera import camera_of_numbers
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.recordings.phones import arkit

LAYOUT = "NAME.r3d, or its files metadata and rgbd/0.jpg, 0.depth, 0.conf; or metadata.json, rgb/0.jpg, depth/0.exr"
FPS = 60.0
DEPTH_SUFFIXES = (".exr", ".png", ".tiff", ".npy")


def fits(path: Path) -> bool:
    if path.suffix.lower() == ".r3d" and path.is_file():
        return True
    if path.is_dir():
        packed = (path / "metadata").is_file() and (path / "rgbd").is_dir()
        return packed or ((path / "metadata.json").is_file() and (path / "rgb").is_dir() and (path / "depth").is_dir())
    return is_zip(path, "metadata", "rgbd/0.jpg")


@dataclass(frozen=True, eq=False)
class _Recording:
    files: Files
    root: str
    exported: bool  # as separate EXR and JPEG files
    depth_shape: tuple[int, int] | None  # (h, w); None where the files say it themselves
    cameras: list[Camera]  # of each frame, or one for all


def open_record3d(path: str | Path, *, camera: Camera | None = None) -> DecodedSequence:
    """Open a recording. Depth of low confidence is left out; frames are brought to the first frame's intrinsics."""
    path = Path(path)
    files = open_files(path)
    exported = files.root_of("rgbd/") is None
    root = files.root_of("metadata.json" if exported else "metadata")
    if root is None:
        raise ValueError(f"{path}: holds no metadata; expected {LAYOUT}")
    where = files.where(root + ("metadata.json" if exported else "metadata"))
    metadata = _metadata(files.read(root + ("metadata.json" if exported else "metadata")), where)
    colors = files.under(f"{root}{'rgb' if exported else 'rgbd'}", COLOR_SUFFIXES)
    names = sorted((name for name in colors if name.isdecimal()), key=int)
    if not names:
        raise ValueError(f"{path}: holds no images; expected {LAYOUT}")
    numbers = [int(name) for name in names]
    height, width = first_readable(files.image, (colors[name] for name in names)).shape[:2]
    cameras = _cameras(metadata, where, numbers, width, height)
    rig_camera = cameras[0] if camera is None else camera.resized(width, height)
    recording = _Recording(files, root, exported, None, [rig_camera] if camera is not None else cameras)
    if not exported:
        recording = _Recording(
            files, root, exported, _depth_shape(files, root, names[0], metadata, width, height), recording.cameras
        )
    shape = recording.depth_shape
    if shape is None:
        depths = files.under(f"{root}depth", DEPTH_SUFFIXES)
        shape = first_readable(files.depth, depths.values()).shape if depths else None  # type: ignore[assignment]
    poses = _poses(metadata, numbers)
    return DecodedSequence(
        name=path.stem,
        rig=Rig(rig_camera, None if shape is None else rig_camera.resized(shape[1], shape[0])),
        timestamps=_times(metadata, numbers),
        read=partial(_read, recording, [colors[name] for name in names]),
        poses=poses if any(T is not None for T in poses) else None,
    )


def _read(recording: _Recording, colors: list[str], index: int) -> Images:
    files, root = recording.files, recording.root
    name = Path(colors[index]).stem
    color = files.image(colors[index])
    camera = recording.cameras[min(index, len(recording.cameras) - 1)]
    if recording.exported:
        there = (f"{root}depth/{name}{suffix}" for suffix in DEPTH_SUFFIXES)
        depth_name = next((file for file in there if files.holds(file)), None)
        return Images(color, None if depth_name is None else files.depth(depth_name), camera=camera)
    if recording.depth_shape is None:
        return Images(color, camera=camera)
    count = math.prod(recording.depth_shape)
    depth = np.frombuffer(_packed(files, f"{root}rgbd/{name}.depth", 4 * count), "<f4").reshape(recording.depth_shape)
    depth = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
    confidence = None
    if files.holds(f"{root}rgbd/{name}.conf"):
        confidence = np.frombuffer(_packed(files, f"{root}rgbd/{name}.conf", count), np.uint8)
    return Images(
        color, arkit.trusted(depth, None if confidence is None else confidence.reshape(depth.shape)), camera=camera
    )


def _packed(files: Files, name: str, expected: int) -> bytes:
    """A file of `expected` bytes, packed by LZFSE or not."""
    from sequences.recordings.phones.lzfse import decompress

    data = files.read(name)
    if len(data) == expected:
        return data
    try:
        return decompress(data, expected)
    except ValueError as problem:
        raise CorruptFrame(f"{files.where(name)}: cannot be unpacked: {problem}", broken_file=True) from None


def _metadata(data: bytes, where: str) -> dict[str, Any]:
    try:
        metadata = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError(f"{where}: is not JSON; expected Record3D's metadata") from None
    if not isinstance(metadata, dict) or "K" not in metadata:
        raise ValueError(f"{where}: lacks K; expected Record3D's metadata (w, h, K, poses, fps)")
    return metadata


def _cameras(metadata: dict, where: str, numbers: list[int], width: int, height: int) -> list[Camera]:
    """The camera of each frame, or one for all, at the size of the images."""
    try:
        w, h = int(metadata.get("w") or width), int(metadata.get("h") or height)
        K = np.array(metadata["K"], np.float64).reshape(3, 3).T
        shared = [float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])]
        frames = [[float(x) for x in row[:4]] for row in metadata.get("perFrameIntrinsicCoeffs") or ()]
        rows = [frames[n] for n in numbers] if len(frames) > max(numbers) else [shared]
        return [camera_of_numbers(w, h, row).resized(width, height) for row in rows]
    except MALFORMED as problem:
        raise ValueError(f"{where}: K, w, h or perFrameIntrinsicCoeffs: {reason(problem)}") from None


def _depth_shape(files: Files, root: str, name: str, metadata: dict, width: int, height: int) -> tuple[int, int] | None:
    """(h, w) of the depth images: what the metadata says, else told by how much they hold, in colour's orientation."""
    if not files.holds(f"{root}rgbd/{name}.depth"):
        return None
    if metadata.get("dw") and metadata.get("dh"):
        return int(metadata["dh"]), int(metadata["dw"])
    for short, long in ((192, 256), (480, 640)):  # lidar; the front camera
        shape = (long, short) if height > width else (short, long)
        try:
            _packed(files, f"{root}rgbd/{name}.depth", 4 * short * long)
        except CorruptFrame:
            continue
        return shape
    raise ValueError(f"{files.where(f'{root}rgbd/{name}.depth')}: depth of unknown size; the metadata lacks dw and dh")


def _times(metadata: dict, numbers: list[int]) -> np.ndarray:
    times = metadata.get("frameTimestamps") or []
    if isinstance(times, list) and len(times) > max(numbers):
        return seconds_or_count(np.array([times[n] for n in numbers], np.float64), FPS)
    fps = metadata.get("fps") or FPS
    return np.array(numbers) / float(fps)


def _poses(metadata: dict, numbers: list[int]) -> tuple[np.ndarray | None, ...]:
    rows = metadata.get("poses") or []

    def pose(number: int) -> np.ndarray | None:
        row = np.array(rows[number], np.float64) if number < len(rows) else np.zeros(0)
        return arkit.camera_to_world(arkit.of_quaternion(row[:4], row[4:7])) if len(row) == 7 else None

    return tuple(pose(number) for number in numbers)
