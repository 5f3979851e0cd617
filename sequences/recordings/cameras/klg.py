"""ElasticFusion's .klg logs, read and written.

Little-endian: i32 number of frames; then a frame: i64 time (us), i32 bytes of depth, i32 bytes of colour, depth
(uint16 mm, raw or packed by zlib), colour (raw RGB or JPEG; none where it has 0 bytes). The file says neither size nor
camera. Whelan et al., "ElasticFusion: dense SLAM without a pose graph", RSS 2015.
"""

from __future__ import annotations

import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np

from semslam import images
from semslam.camera import Camera
from semslam.images import CorruptFrame
from semslam.trajectory import Trajectory
from semslam.trajectory.files import read_tum, write_tum
from sequences.clock import seconds_or_count
from sequences.files import read_part, unpacked
from sequences.pose_pairing import FramePoses, poses_at
from sequences.recordings.camera_file import write_camera_file
from sequences.recordings.cameras.given_camera import given_camera
from sequences.recordings.decoded import DecodedSequence, Images, Rig
from sequences.recordings.depth_units import DepthUnits
from sequences.sequence import Sequence

LAYOUT = "NAME.klg; NAME.yaml or camera.yaml (else 528 528 320 240 at 640x480) and NAME.freiburg (poses) beside it"
CAMERA = Camera(640, 480, 528.0, 528.0, 320.0, 240.0)  # what ElasticFusion takes where nothing is said
FRAME_HEADER = struct.Struct("<qii")
FPS = 30.0
JPEG_QUALITY = 95
WRITTEN_SCALE = 1000.0  # units per metre


def fits(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".klg"


def open_klg(
    path: str | Path, *, depth_scale: float | None = None, camera: Camera | None = None, fov: float | None = None
) -> DecodedSequence:
    """Open a log; images are decoded when asked for. One that is cut short gives the frames before the cut."""
    path = Path(path)
    places, ticks, notes = _frames(path)
    width, height = _size(path, places, camera)
    beside = path.with_suffix(".yaml").is_file() or (path.parent / "camera.yaml").is_file()
    if camera is None and fov is None and not beside and width * 3 == height * 4:
        camera = CAMERA
        notes = (
            *notes,
            f"{path}: a log does not say its camera; ElasticFusion's is taken (528 528 320 240 at 640x480)",
        )
    camera = given_camera(path, width, height, camera, fov)
    found = _poses(path, ticks / 1e6)
    times = seconds_or_count(ticks / 1e6, FPS) if len(ticks) > 1 else ticks / 1e6
    return DecodedSequence(
        name=path.stem,
        rig=Rig(camera, camera),
        timestamps=times,
        read=partial(_read, path, places, (height, width), depth_scale or 1000.0),
        poses=None if found is None else found.T_world_camera,
        assumptions=notes if found is None else (*notes, *found.notes),
    )


def _frames(path: Path) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """(where depth starts, its bytes, colour's bytes) of each whole frame, its time (us), and what is missing."""
    size = path.stat().st_size
    places: list[tuple[int, int, int]] = []
    ticks, at = [], 4
    with path.open("rb") as file:
        head = file.read(4)
        if len(head) < 4:
            raise ValueError(f"{path}: is empty or cut short; expected a .klg log")
        (claimed,) = struct.unpack("<i", head)
        while len(places) < claimed and at + FRAME_HEADER.size <= size:
            file.seek(at)
            tick, depth_bytes, color_bytes = FRAME_HEADER.unpack(file.read(FRAME_HEADER.size))
            at += FRAME_HEADER.size
            if min(depth_bytes, color_bytes) < 0 or at + depth_bytes + color_bytes > size:
                break
            places.append((at, depth_bytes, color_bytes))
            ticks.append(tick)
            at += depth_bytes + color_bytes
    if not places:
        raise ValueError(f"{path}: holds no whole frame of the {claimed} that it claims; copy it again")
    cut = (f"{path}: claims {claimed} frames, holds {len(places)}; the file is cut short",)
    return np.array(places), np.array(ticks, np.int64), cut if len(places) < claimed else ()


def _size(path: Path, places: np.ndarray, camera: Camera | None) -> tuple[int, int]:
    """(width, height) of the images: those of the first JPEG, else the given camera's, else 640x480."""
    start, depth_bytes, color_bytes = (int(n) for n in places[0])
    data = read_part(path, start + depth_bytes, color_bytes, f"{path}: frame 0")
    if data.startswith(b"\xff\xd8"):
        height, width = images.color_of_bytes(data, f"{path}: frame 0").shape[:2]
        return width, height
    width, height = (CAMERA.width, CAMERA.height) if camera is None else (camera.width, camera.height)
    if color_bytes and color_bytes != 3 * width * height:
        raise ValueError(
            f"{path}: colour is raw, of {color_bytes} bytes a frame, which is no {width}x{height} image; give a camera "
            f"of the images' size with --camera"
        )
    return width, height


def _read(path: Path, places: np.ndarray, shape: tuple[int, int], depth_scale: float, index: int) -> Images:

    start, depth_bytes, color_bytes = (int(n) for n in places[index])
    where, pixels = f"{path}: frame {index}", shape[0] * shape[1]
    data = read_part(path, start, depth_bytes + color_bytes, where)
    depth, color = data[:depth_bytes], data[depth_bytes:]
    if len(depth) != 2 * pixels:
        depth = unpacked(depth, 2 * pixels, f"{where}, depth")
    if len(depth) != 2 * pixels:
        raise CorruptFrame(f"{where}: depth has {len(depth)} bytes, expected {2 * pixels} of {shape[1]}x{shape[0]}")
    if color_bytes == 0:
        image: np.ndarray = np.zeros((*shape, 3), np.uint8)
    elif color_bytes == 3 * pixels:
        image = np.frombuffer(color, np.uint8).reshape(*shape, 3)
    else:
        image = images.color_of_bytes(color, f"{where}, colour")
    return Images(image, images.depth_of_units(np.frombuffer(depth, "<u2").reshape(shape), depth_scale))


def _poses(path: Path, times: np.ndarray) -> FramePoses | None:
    for file in (path.with_suffix(".freiburg"), path.with_name(path.name + ".freiburg")):
        if file.is_file():
            return poses_at(read_tum(file), file, times)
    return None


def write_klg(sequence: Sequence, path: str | Path) -> Path:
    """Write a sequence as a log: depth in mm packed by zlib, colour as JPEG; the camera and the poses beside it.

    Depth beyond 65.5 m becomes none; ValueError where that is most of it.
    """
    import cv2

    from semslam.files.writing import replacing

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Colour at full resolution: a JPEG of the usual kind halves it.
    how = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    how += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<i", 0))  # how many there are is known when they are written
        written, units = 0, DepthUnits(WRITTEN_SCALE)
        for frame in sequence:
            written += 1
            depth = np.zeros(sequence.camera.shape) if frame.depth is None else frame.depth
            packed = zlib.compress(units(depth).astype("<u2").tobytes(), 6)
            bgr = cv2.cvtColor(frame.color, cv2.COLOR_RGB2BGR)
            jpeg = cv2.imencode(".jpg", bgr, how)[1].tobytes()
            file.write(FRAME_HEADER.pack(round(frame.timestamp * 1e6), len(packed), len(jpeg)))
            file.write(packed)
            file.write(jpeg)
        units.tell_lost(sequence.name)
        file.seek(0)
        file.write(struct.pack("<i", written))
        write_camera_file(path.with_suffix(".yaml"), sequence.camera)
    trajectory = sequence.trajectory
    if trajectory is not None:
        rounded = Trajectory(np.round(trajectory.timestamps * 1e6) / 1e6, trajectory.T_world_camera)
        write_tum(path.with_suffix(".freiburg"), rounded)
    return path
